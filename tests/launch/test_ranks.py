"""Ranks that etude starts itself: what they open, and how they end when one of them, or what started them,
does.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from etude.recipe.load import load_recipe
from etude.records.events import Control
from etude.records.store import list_runs
from tests.forking import server
from tests.processes import Life, final_bits, listening, wait_for
from tests.programs import run_program

Write = Callable[..., Path]


def test_ranks_that_are_killed_stopped_or_orphaned_end_and_continue_bit_for_bit(
    tmp_path: Path, write_recipe: Write, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    recipe = write_recipe({
        "model.dropout": 0.1, "train.steps": 160, "train.devices": 2, "checkpoint.every_steps": 10,
        "evaluate.every_steps": 80, "run.lost_after": "20s",
    })  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(load_recipe(recipe).to_dict()))
    whole = run_program("steered", [tmp_path / "recipe.json", tmp_path / "whole", "{}"], cache, ranks=2)
    assert whole.code == 0, whole.err[-2000:]

    killed = Life(recipe, tmp_path / "runs", cache)
    killed.wait_for_progress()
    assert listening(psutil.Process(killed.process.pid)) == []
    killed.ranks[1].kill()
    assert killed.end() == 1
    assert (
        "error: rank 1 was killed by SIGKILL" in killed.said()
        and "continue with: etude train" in killed.said()
    )
    reason = "rank 1 was killed by SIGKILL, perhaps for want of memory; the same command continues"
    assert reason in next((tmp_path / "runs").glob("*/journal.jsonl")).read_text()

    orphaned = Life(recipe, tmp_path / "runs", cache)
    orphaned.wait_for_progress()
    orphaned.ranks[1].suspend()
    wait_for(lambda: orphaned.ranks[1].status() == psutil.STATUS_STOPPED, orphaned.process)
    orphaned.process.kill()  # a stopped rank that loses its parent is woken by the system, and then sees it gone
    assert orphaned.end() == -signal.SIGKILL
    assert len(list(temporary.glob("etude-*"))) == 1

    stopped = Life(recipe, tmp_path / "runs", cache)
    stopped.wait_for_progress()
    stopped.ranks[0].suspend()
    assert stopped.end() == 1
    assert "error: rank 0 was stopped or hung, and was ended" in stopped.said()
    assert f"its process {stopped.ranks[0].pid} is stopped" in stopped.said()

    # Killed when the run is written down already, a rank takes nothing with it.
    last = Life(recipe, tmp_path / "runs", cache)
    last.wait_for_progress()
    journal = next((tmp_path / "runs").glob("*/journal.jsonl"))
    wait_for(lambda: '"action": "finish"' in journal.read_text(), last.process)
    with contextlib.suppress(psutil.NoSuchProcess):
        last.ranks[1].kill()
    assert last.end() == 0, last.said()
    assert final_bits(tmp_path / "runs") == final_bits(tmp_path / "whole")
    assert list(temporary.glob("etude-*")) == []


def test_a_burst_of_interrupts_stops_ranks_without_a_traceback(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 100_000, "train.devices": 2, "checkpoint.every_steps": 10})
    life = Life(recipe, tmp_path / "runs", cache)
    life.wait_for_progress()
    for _ in range(30):
        life.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert life.end() in (75, 130)


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.6, 1.2])
def test_an_early_interrupt_is_no_traceback_and_leaves_no_run(
    tmp_path: Path, write_recipe: Write, cache: Path, delay: float
) -> None:
    recipe = write_recipe({"train.steps": 100_000})
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); from etude.__main__ import program; program()",
         "train", str(recipe), "--runs", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ETUDE_CACHE": str(cache)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()  # Python itself has started
    time.sleep(0.05 + delay)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (75, 130), err
    assert "Traceback" not in err and "Exception ignored" not in err
    assert [path.name for path in (tmp_path / "runs").glob(".*")] in ([], [".lock"])


# The main thread of the rank that gets SIGWINCH sleeps, as one that hangs does; its other threads go on.
# SIGUSR2 lets it wait for a program, and for a thread of its own, that work longer than the limit of the
# test.
ASIDE = """
import signal, subprocess, sys, threading, time
def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
        time.sleep(0.05)
def long(*_):
    subprocess.run([sys.executable, "-S", "-c", "import time\\nfor _ in range(20): sum(range(10**6)); time.sleep(0.2)"])
    thread = threading.Thread(target=work, args=(4,))
    thread.start()
    thread.join()
    print("went on", file=sys.stderr, flush=True)
signal.signal(signal.SIGWINCH, lambda *_: time.sleep(3600))
signal.signal(signal.SIGUSR2, long)
"""


def test_a_rank_whose_main_thread_hangs_is_named_and_one_that_works_long_is_left_alone(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({
        "train.steps": 100_000, "train.devices": 2, "checkpoint.every_steps": 10, "evaluate.every_steps": 10,
        "run.hung_after": "6s",
    })  # fmt: skip
    life = Life(recipe, tmp_path / "runs", cache, first=ASIDE)
    life.wait_for_progress()
    life.ranks[0].send_signal(signal.SIGUSR2)
    wait_for(lambda: "went on" in life.said(), life.process)
    life.ranks[1].send_signal(signal.SIGWINCH)  # SIGUSR1 asks a run to stop
    assert life.end() == 1
    assert "error: rank 1 was stopped or hung, and was ended: it did nothing for " in life.said()


def test_a_rank_that_does_not_come_to_a_step_is_lost_within_the_limit(tmp_path: Path) -> None:
    program = (
        "import sys, time, torch; from etude.engine.world import join_world\n"
        "world = join_world(torch.device('cpu'), sum_seconds=2)\n"
        "world.wait()\n"
        "time.sleep(300 * world.rank)\n"
        "try:\n    world.sum([torch.ones(1)])\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "WORLD_SIZE": "2", "ETUDE_RANKS_FOLDER": str(tmp_path)}
    ranks = [
        server().start(
            program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    out, _ = ranks[0].communicate(timeout=300)
    ranks[1].kill()
    ranks[1].wait()
    assert out.startswith("LostRankError another rank of this run ended or does not answer"), out


# The memory of rank 1 is for two samples at once: what is larger fails as on a GPU.
SHORT = """
import os, torch
from etude.objectives.causal import Causal
whole = Causal.loss_sum
def loss_sum(self, model, batch):
    if os.environ.get("RANK") == "1" and model.training and batch.tokens.numel() > 2 * 32:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return whole(self, model, batch)
Causal.loss_sum = loss_sum
"""


def test_ranks_with_a_model_in_pieces_start_again_in_smaller_micro_batches_where_one_has_no_memory(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({
        "train.steps": 4, "train.devices": 2, "train.parallel": "shard", "train.micro_batch_size": 4,
    })  # fmt: skip
    words, environment = (
        ["train", str(recipe), "--new", "--runs", str(tmp_path / "runs")],
        {"ETUDE_CACHE": str(cache)},
    )
    done = server().run(tmp_path, words, seconds=300, environment=environment, first=SHORT)
    assert done.code == 0 and "Traceback" not in done.err, done.err
    (run,) = list_runs(tmp_path / "runs")
    found = [event for event, *_ in run.ledger().all]
    (change,) = [each for each in found if isinstance(each, Control) and each.changes]
    assert (change.changes, change.from_step) == ({"train.micro_batch_size": 2}, 0)
    assert "step 1 ran out of memory for a micro-batch" in change.reason and run.state == "finished"


def test_what_all_ranks_refuse_is_said_once(tmp_path: Path, write_recipe: Write, cache: Path) -> None:
    (tmp_path / "few.txt").write_text("def f(x):\n    return x\n")
    recipe = write_recipe({
        "train.devices": 2, "data.train": [{"path": str(tmp_path / "few.txt")}], "data.validation": "none",
    })  # fmt: skip
    words = ["train", str(recipe), "--runs", str(tmp_path / "runs")]
    done = server().run(tmp_path, words, seconds=300, environment={"ETUDE_CACHE": str(cache)})
    assert done.code == 2 and list_runs(tmp_path / "runs") == []
    said = [line for line in done.err.splitlines() if "error" in line]
    assert said == ["error: train.devices is 2, but there is 1 training sample; use 1 at most"], done.err


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="namespaces of Linux, as root")
def test_ranks_without_a_loopback_interface_say_so_before_they_start(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({"train.devices": 2})
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "etude", "train", str(recipe), "--runs", str(tmp_path / "runs")],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ETUDE_CACHE": str(cache)},
    )  # fmt: skip
    assert done.returncode == 1 and "the loopback interface, which does not answer here" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists(), done.stderr


def test_ranks_whose_folder_is_removed_end_with_a_line(
    tmp_path: Path, write_recipe: Write, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    recipe = write_recipe({"train.steps": 100_000, "train.devices": 2, "checkpoint.every_steps": 10})
    life = Life(recipe, tmp_path / "runs", cache)
    life.wait_for_progress()
    (folder,) = (tmp_path / "tmp").glob("etude-ranks-*")
    shutil.rmtree(folder)
    assert life.end() == 1 and f"error: {folder}, where the ranks meet, is gone" in life.said()

"""The guard of a run: it sees a death and a hang, tells each once, and starts the run again to the same bits."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.notify.guard import Guard, Limits, _end
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.journal import append_beside
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.conftest import Outcome
from tests.notify.server import Service, serving, wait_until
from tests.processes import final_bits

Make = Callable[..., Recipe]
LONG = {"train.steps": 160, "checkpoint.every_steps": 20, "evaluate.every_steps": 80}
TOLD = {"notify": [{"channel": "webhook", "on": ["fault", "finished"]}]}
QUICK = Limits(silence=3.0, poll=0.05, grace=0.3, back_off=0.05, restarts=3)


def saved(run: Run) -> int:
    return len(list(run.checkpoints.glob("step-*/manifest.json")))


def test_it_tells_of_a_hang_and_a_death_once_each_and_restarts_to_the_same_bits(
    write_recipe: Callable[..., Path], make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(make_recipe(LONG), Options(runs=tmp_path / "quiet"))
    runs, said = tmp_path / "runs", list[str]()
    with serving(Service()) as service:
        monkeypatch.setenv("ETUDE_WEBHOOK_URL", service.url)
        words = ["-m", "etude", "train", str(write_recipe({**LONG, **TOLD})), "--runs", str(runs)]
        first = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
        wait_until(lambda: runs.exists() and any(map(saved, list_runs(runs))), 120)
        (run,) = list_runs(runs)
        os.kill(first.pid, signal.SIGSTOP)
        results: list[int] = []
        guard = Guard(run, QUICK, said.append)
        thread = threading.Thread(target=lambda: results.append(guard.watch()))
        thread.start()
        assert first.wait(120) == -signal.SIGKILL  # as it could not end by SIGTERM
        before = saved(run)
        wait_until(lambda: run.lease["pid"] != first.pid and saved(run) != before, 120)
        os.kill(run.lease["pid"], signal.SIGKILL)
        thread.join(120)
        assert results == [0], said
        told = [body["cause"] for body in service.bodies]
        bodies = service.bodies
    assert [" ".join(cause.split()[:2]) for cause in told] == ["it hangs", "it died", "finished"], said
    assert f"etude resume {run.path}" in bodies[0]["commands"] and "the end of its log:" in bodies[1]["text"]
    assert final_bits(runs) == final_bits(tmp_path / "quiet")


@pytest.fixture
def dead(make_recipe: Make, tmp_path: Path) -> Run:
    """A run whose process was killed in the middle."""
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run.path / "lease.json").write_text(json.dumps({**run.lease, "state": "running", "pid": gone.pid}))
    return run


@pytest.mark.parametrize(("exit_code", "starts"), [(1, 1), (2, 0)])
def test_a_run_that_failed_is_started_again_but_not_where_its_input_was_at_fault(
    dead: Run, monkeypatch: pytest.MonkeyPatch, exit_code: int, starts: int
) -> None:
    append_beside(dead.path / "journal.jsonl", events.Control(12, "fail", "it broke", exit_code=exit_code))
    (dead.path / "lease.json").write_text(json.dumps({**dead.lease, "state": "failed"}))
    started: list[list[str]] = []
    monkeypatch.setattr(
        "etude.notify.guard.python_command",
        lambda *words: started.append(list(words)) or [sys.executable, "-c", "raise SystemExit(2)"],
    )
    said: list[str] = []
    assert Guard(dead, QUICK, said.append).watch() == 1
    assert started == [["etude", "resume", str(dead.path)]] * starts
    assert any("error of its input" in line for line in said)


def test_restarts_end_and_no_process_of_another_start_is_ended(
    dead: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr(
        "etude.notify.guard.python_command",
        lambda *words: started.append(1) or [sys.executable, "-c", "raise SystemExit(1)"],
    )
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    lease = {**dead.lease, "pid": other.pid, "heartbeat": 1.0, "started": 1.0}
    _end({"pid": other.pid, "heartbeat": 1e18, "state": "running"}, 0.1)  # a lease that any process fits
    (dead.path / "lease.json").write_text(json.dumps(lease))
    assert Guard(dead, QUICK, lambda text: None).watch() == 1
    assert len(started) == QUICK.restarts and other.poll() is None
    other.kill()
    other.wait()


def test_a_run_has_one_guard_and_only_on_its_machine(dead: Run) -> None:
    lock = os.open(dead.path / ".guard.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="has a guard"):
        Guard(dead, QUICK, print)
    os.close(lock)
    (dead.path / "lease.json").write_text(json.dumps({**dead.lease, "host": "elsewhere"}))
    with pytest.raises(InputError, match="is on elsewhere, this is"):
        Guard(dead, QUICK, print)
    (dead.path / "lease.json").write_text(json.dumps({"state": "finished", "left": True}))
    with pytest.raises(InputError, match="is finished, and no process has it"):
        Guard(dead, QUICK, print)


def test_a_guard_ends_with_a_run_that_ended(
    make_recipe: Make, tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    run = run_recipe(make_recipe({"train.steps": 2}), Options(runs=tmp_path / "runs", guard=0)).run
    wait_until((run.path / ".guard.lock").exists)  # of the process that was started beside it

    def is_free() -> bool:
        with (run.path / ".guard.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    wait_until(is_free, 60)
    ended = etude("guard", run.path)
    assert (ended.code, ended.err) == (0, f"run {run.name} is finished; nothing is left to guard\n")

"""Two machines under torchrun, as two network namespaces with host names and caches of their own, and what a
restart of its ranks goes on with.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etude.records.store import list_runs

PORT = 29517
NAMES = ("east", "west")


def run(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, capture_output=True, text=True, timeout=60)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two network namespaces, joined by a cable; skips where this user may not make them."""
    names = [f"{name}-{os.getpid()}" for name in NAMES]
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                run(f"ip netns add {name}")
                stack.callback(run, f"ip netns del {name}")
            east, west = names
            run(f"ip link add name cable netns {east} type veth peer name cable netns {west}")
            for place, name in enumerate(names, start=1):
                run(f"ip -n {name} addr add 10.77.0.{place}/24 dev cable")
                run(f"ip -n {name} link set cable up")
                run(f"ip -n {name} link set lo up")
            run("unshare --uts hostname east")
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield names


def agents(machines: list[str], recipe: Path, folder: Path, *words: str) -> list["subprocess.Popen[bytes]"]:
    """An agent of torchrun on each machine, with one rank."""
    started = []
    for place, machine in enumerate(machines):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--node-rank", str(place), "--rdzv-id", "test", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", f"10.77.0.1:{PORT}", "--rdzv-conf", f"is_host={int(place == 0)}",
            "--local-addr", f"10.77.0.{place + 1}", "--max-restarts", "2",
            "-m", "etude", "train", str(recipe), "--runs", str(folder / "runs"), *words,
        ]  # fmt: skip
        inside = f'hostname {NAMES[place]}; exec "$@"'
        cache = folder / f"cache-{NAMES[place]}"
        with (folder / f"{NAMES[place]}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", machine, "unshare", "--uts", "sh", "-c", inside, "sh", *command],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={
                        **os.environ,
                        "ETUDE_CACHE": str(cache),
                        "OMP_NUM_THREADS": "1",
                        "GLOO_SOCKET_IFNAME": "cable",
                    },
                )
            )
    return started


def test_two_machines_without_a_shared_cache_train_and_go_on_after_a_lost_rank(
    machines: list[str], tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe({"train.steps": 200, "checkpoint.every_steps": 5, "evaluate.every_steps": 200})
    started = agents(machines, recipe, tmp_path, "--new")
    try:
        end = time.monotonic() + 900
        while not list(tmp_path.glob("runs/*/checkpoints/step-000010/manifest.json")):
            assert time.monotonic() < end and not any(each.poll() for each in started), said(tmp_path)
            time.sleep(0.05)
        for name in NAMES:
            assert len(list((tmp_path / f"cache-{name}" / "prepared").glob("*/manifest.json"))) == 1
        (victim,) = ranks_of(started[1].pid)
        os.kill(victim, 9)
        assert [each.wait(timeout=900) for each in started] == [0, 0], said(tmp_path)
    finally:
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, 9)
            each.wait()
    (made,) = list_runs(tmp_path / "runs")
    records = [json.loads(line) for line in (made.path / "journal.jsonl").read_text().splitlines()]
    assert [each["from_step"] >= 10 for each in records if each["type"] == "attempt"] == [False, True]
    reasons = [each["reason"] for each in records if each["type"] == "control" and each["action"] == "fail"]
    assert any("rank 1 on west" in each or "rank 0 on east" in each for each in reasons), said(tmp_path)
    assert made.state == "finished"


def ranks_of(agent: int) -> list[int]:
    """The processes that an agent started."""
    import psutil

    return [each.pid for each in psutil.Process(agent).children() if "etude" in each.cmdline()]


def said(folder: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))

"""Runs of several processes: started, watched and compared."""

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from etude.records.store import list_runs
from tests.forking import server


class Life:
    """A two-rank run in a session of its own, after the code `first`; what it said goes to a file."""

    def __init__(self, recipe: Path, runs: Path, cache: Path, *, first: str = "") -> None:
        self.runs, self.log = runs, runs.with_suffix(".log")
        self._before = self._saved()
        with self.log.open("w") as log:
            self.process = server().etude(
                ["train", recipe, "--runs", runs], first=first, stdout=log, stderr=log,
                env={**os.environ, "ETUDE_CACHE": str(cache)}, start_new_session=True,
            )  # fmt: skip

    def wait_for_progress(self) -> None:
        """Wait until this life has saved, and note its processes."""
        deadline = time.monotonic() + 600
        while self._saved() <= self._before:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        self.ranks = sorted(psutil.Process(self.process.pid).children(), key=lambda process: process.pid)
        assert len(self.ranks) == 2

    def _saved(self) -> str:
        return max(
            (path.parent.name for path in self.runs.glob("*/checkpoints/step-*/manifest.json")), default=""
        )

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        """Wait for the launcher, and check that none of the run is left and nothing but lines was said."""
        code = self.process.wait(timeout=300)
        _, left = psutil.wait_procs(self.ranks, timeout=60)
        assert not left, left
        assert "Traceback" not in self.said(), self.said()
        return code


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[Any] | None" = None) -> Any:
    """Wait until a condition gives something, while a process lives if one is given, and return that."""
    deadline = time.monotonic() + 300
    while not (found := condition()):
        assert process is None or process.poll() is None or condition(), "the process has ended"
        assert time.monotonic() < deadline, "it did not happen within five minutes"
        time.sleep(0.02)
    return found


def in_a_fork(do: Callable[[], object]) -> int:
    """Do something in a process of its own, which ends without clean-up; returns its exit code, -9 if it was
    killed.
    """

    child = begin_fork(do)
    child.join(120)
    if (
        child.exitcode is None
    ):  # a lock of torch's was held when the process was copied: once in some thousands
        child.kill()
        return in_a_fork(do)
    return child.exitcode


def begin_fork(do: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    """A process of its own that does something, and ends without clean-up."""

    def live() -> None:
        do()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    return child


def final_bits(runs: Path) -> bytes:
    """The tensors of the last checkpoint of the only run: weights, or those of an adapter, and optimizer."""
    (run,) = list_runs(runs)
    assert run.state == "finished"
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    files = sorted(last.glob("*.safetensors"))
    assert len(files) == 2, files
    return b"".join(file.read_bytes() for file in files)


def listening(process: psutil.Process) -> list[str]:
    """The addresses at which a process and its descendants listen, but for those of this machine alone."""
    connections = [
        each for one in (process, *process.children(recursive=True)) for each in one.net_connections("inet")
    ]
    open_ones = [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]
    return [address for address in open_ones if not address.startswith("127.") and address != "::1"]

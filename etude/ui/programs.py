"""Commands of etude in processes of their own, for what takes torch, time or memory; each has limits."""

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.processes import python_command, python_environment

_LOOK_SECONDS = 0.05
_NICE = 10  # a training beside it comes first
_MOST_OUTPUT = 64 << 20  # bytes
_LONGEST_PROBLEM = 400  # characters


class SupersededError(InputError):
    """A newer question of the same kind came before this one was answered."""


@dataclass(frozen=True)
class Limits:
    """The seconds and the resident bytes that a command and its children may take."""

    seconds: float = 120.0
    memory_bytes: int = 8 << 30


class Program:
    """One command at a time of a kind: the newest question ends the one before it."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits, self._turn = limits, threading.Lock()
        self._count, self._counting = 0, threading.Lock()

    def ask(self, *words: str) -> tuple[int, Any]:
        """Run a command with `--json`; returns its exit code and what it printed.

        Raises: SupersededError if a newer question came; InputError if a limit was reached.
        """
        with self._counting:
            self._count += 1
            mine = self._count
        with self._turn:
            return run_command(*words, limits=self._limits, is_over=lambda: self._count != mine)


@dataclass(frozen=True)
class Programs:
    """The commands that a server runs, one of each kind at a time."""

    estimate: Program = field(default_factory=lambda: Program(Limits(300.0, 16 << 30)))
    rows: Program = field(default_factory=lambda: Program(Limits(120.0, 8 << 30)))
    data: Program = field(default_factory=lambda: Program(Limits(600.0, 16 << 30)))
    compare: Program = field(default_factory=lambda: Program(Limits(600.0, 32 << 30)))
    sweep: Program = field(default_factory=lambda: Program(Limits(600.0, 16 << 30)))


def run_command(
    *words: str, limits: Limits = Limits(), is_over: Any = lambda: False, folder: Path | None = None
) -> tuple[int, Any]:
    """Run a command of etude with `--json` in a folder, by default an empty one of its own.

    Raises: SupersededError once `is_over` says so; InputError if a limit was reached or it gave no JSON.
    """
    if is_over():
        raise SupersededError("a newer question was asked")
    with tempfile.TemporaryFile() as output, _place(folder) as place:
        process = subprocess.Popen(
            python_command("etude", *words, "--json"), env=python_environment(), cwd=place,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, words[0], limits, is_over)
        finally:
            _end(process)
        output.seek(0)
        printed = output.read(_MOST_OUTPUT + 1)
    if len(printed) > _MOST_OUTPUT:
        raise InputError(f"etude {words[0]} printed over {_MOST_OUTPUT >> 20} MB")
    try:
        return process.returncode, json.loads(printed or b"{}")
    except (ValueError, RecursionError):
        raise InputError(f"etude {words[0]} ended with exit code {process.returncode} and no JSON") from None


def problem_of(answer: Any) -> str:
    """The problem that a command printed as JSON, in one line."""
    told = answer.get("error") if isinstance(answer, dict) else None
    return str(told or "the command ended without a word")[:_LONGEST_PROBLEM]


def _wait(process: "subprocess.Popen[bytes]", what: str, limits: Limits, is_over: Any) -> None:
    import psutil

    deadline = time.monotonic() + limits.seconds
    with contextlib.suppress(psutil.Error):
        psutil.Process(process.pid).nice(_NICE)
    while process.poll() is None:
        if is_over():
            raise SupersededError("a newer question was asked")
        if time.monotonic() > deadline:
            raise InputError(f"etude {what} took over {limits.seconds:,.0f} s and was ended")
        if _memory(process.pid) > limits.memory_bytes:
            raise InputError(f"etude {what} took over {limits.memory_bytes / 1e9:,.1f} GB and was ended")
        time.sleep(_LOOK_SECONDS)


def _memory(pid: int) -> int:
    """Resident bytes of a process and its children."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its children if it still runs."""
    import psutil

    if process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    each.kill()
        process.kill()
    process.wait()


@contextlib.contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with durable.temporary_folder("etude-page-") as made:
        yield made

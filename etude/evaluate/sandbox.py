"""The sandbox that runs samples of a model against tests, on all cores, and says which pass.

Each core has a bare process (`apart.py`) that begins two confined ones for a sample. Limits are of CPU time,
not of the clock, so that a verdict does not depend on what else the machine does. Where the kernel cannot
confine, nothing is run unless the user typed that it may.
"""

import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from etude.confine.room import Tier, strongest
from etude.errors import FaultError, InputError
from etude.evaluate.languages import MARK_BYTES, PYTHON, build, find_language, join
from etude.evaluate.verdicts import Limits, Verdict, verdict_of_program, verdict_of_sample
from etude.processes import python_command

_MOST_SOURCE_BYTES = 1 << 20
_MOST_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The tests of a sample.

    context      text that the sample begins with, whose own functions the tests use
    tests        Python; `check(candidate)` among it is called with the entry point
    entry_point  the name of what is tested; "" if the tests name it themselves
    language     another than Python, "" for it; then tests are the end of the program that the sample begins
    """

    tests: str
    entry_point: str = ""
    context: str = ""
    language: str = ""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_tier() -> Tier:
    """The strongest confinement of this kernel. Raises: InputError if it has none for foreign code."""
    tier = strongest()
    if not tier.confines:
        raise _unconfined(tier)
    return tier


class Sandbox:
    """Bare processes for samples, as many as cores, each begun when it is first needed.

    tier  the confinement, as records have it
    """

    def __init__(
        self, *, limits: Limits | None = None, processes: int | None = None, tier: Tier | None = None,
        is_unsafe: bool = False,
    ) -> None:  # fmt: skip
        """tier: instead of the strongest. is_unsafe: run without one. Raises: InputError without a tier."""
        self.tier = strongest() if tier is None else tier
        if not self.tier.confines and not is_unsafe:
            raise _unconfined(self.tier)
        self._limits = limits or Limits()
        self._count = processes or cores()
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="sandbox")

    def run(self, samples: Sequence[tuple[str, Problem]]) -> Iterator[Verdict]:
        """The verdicts on samples, in their order, as they come."""
        yield from self._threads.map(lambda each: self.judge(*each), samples)

    def judge(self, sample: str, problem: Problem) -> Verdict:
        """Run a sample against its tests. Raises: FaultError if the sandbox itself fails twice."""
        if len(sample) + len(problem.tests) > _MOST_SOURCE_BYTES:
            return Verdict("error", f"the sample and its tests are over {_MOST_SOURCE_BYTES >> 20} MiB")
        for attempt in range(2):
            process = self._take()
            try:
                verdict = process.judge(sample, problem, self._limits)
            except (OSError, ValueError) as error:
                process.close()
                if attempt:
                    raise FaultError(f"the process of the sandbox ended by itself ({error})") from error
            except BaseException:
                process.close()
                raise
            else:
                with self._lock:
                    self._idle.append(process)
                return verdict
        raise AssertionError

    def close(self) -> None:
        """End all processes."""
        self._threads.shutdown(cancel_futures=True)
        with self._lock:
            for process in self._idle:
                process.close()
            self._idle.clear()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        self.close()

    def _take(self) -> "_Process":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Process(self.tier)


class _Process:
    """One bare process, and the socket to it."""

    def __init__(self, tier: Tier) -> None:
        ours, theirs = socket.socketpair()
        package = Path(__file__).parents[2]
        environment = {
            "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONPATH": str(package),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                python_command("etude.evaluate.apart", json.dumps(tier.to_dict())),
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=environment, cwd="/",
            )  # fmt: skip
        self._socket = ours
        self._socket.settimeout(60)
        try:
            if self._answer() != b"ready\n":
                raise OSError("it did not start")
        except OSError as error:
            self.close()
            raise FaultError(f"the process of the sandbox did not start ({error})") from error

    def judge(self, sample: str, problem: Problem, limits: Limits) -> Verdict:
        """Run a sample. Raises: OSError or ValueError if the process ended."""
        nonce = secrets.token_hex(MARK_BYTES // 2)
        language = find_language(problem.language or PYTHON)
        if language is None:
            tests = json.dumps({"nonce": nonce, **asdict(problem)})
            return verdict_of_sample(self._ask({}, limits, sample, tests), nonce, limits)
        program = build(language, join(language, sample, problem.tests), nonce, limits.memory_bytes)
        with tempfile.TemporaryDirectory(prefix="etude-", ignore_cleanup_errors=True) as folder:
            answer = self._ask({"folder": folder}, limits, json.dumps(program))
        if "unable" in answer:
            raise FaultError(f"a program in {language.name} could not be run: {answer['unable']}")
        return verdict_of_program(answer, nonce, limits)

    def _ask(self, beside: dict[str, Any], limits: Limits, *texts: str) -> dict[str, Any]:
        """The answer to an order, with texts in files that are in no folder."""
        room = {"cpu_seconds": limits.cpu_seconds, "memory_bytes": limits.memory_bytes}
        order = json.dumps({"room": room, "asleep_seconds": limits.asleep_seconds, **beside}).encode()
        files: list[int] = []
        try:
            files += [_in_memory(text) for text in texts]
            socket.send_fds(self._socket, [order], files)
        finally:
            for file in files:
                os.close(file)
        self._socket.settimeout(None)
        found: dict[str, Any] = json.loads(self._answer())
        return found

    def close(self) -> None:
        """End the process and, by the kernel, those that it began."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            part = self._socket.recv(1 << 16)
            if not part or len(data) > _MOST_ANSWER_BYTES:
                raise OSError("no answer")
            data += part
        return data


def _unconfined(tier: Tier) -> InputError:
    return InputError(
        f"this kernel cannot confine foreign code (it has {tier}, not Landlock and seccomp), so "
        "no sample is run; use Linux 5.13 or newer, or --unsafe-exec on a machine that you can lose"
    )


def _in_memory(text: str) -> int:
    """A file of a text that is in no folder."""
    file = os.memfd_create("source", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as opened:
        opened.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(file, 0, os.SEEK_SET)
    return file

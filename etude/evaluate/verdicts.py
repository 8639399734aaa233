"""The outcome of a sample, from what its processes did and said."""

import contextlib
import json
import re
import signal
from dataclasses import dataclass
from typing import Any

_MEMORY_ERRORS = ("MemoryError",)
# What programs say of memory that they were not given, and of an assertion that does not hold.
_SAYS_MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|bad_alloc|memory allocation of|[Cc]annot allocate memory"
)
_SAYS_ASSERTION = re.compile(
    r"^(?:(?:Exception .*|\S*)AssertionError\b|Error: Assertion failed|.*: Assertion `.*failed"
    r"|assertion .*failed).*$",
    re.MULTILINE,
)
_SAYS_FAILED = re.compile(r"\A(?!.*^panic: ).*^\s*--- FAIL", re.MULTILINE | re.DOTALL)
_SAYS_ERROR = re.compile(
    r"^(?:[\w.]*(?:Error|Exception)\b|panic: |thread .*panicked|.*\berror\b).*$", re.MULTILINE
)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a sample.

    outcome  passed, failed (an assertion), error, ended (too early), compile; of limits: cpu, asleep,
             memory, output
    words    the error in words, of foreign code
    """

    outcome: str
    words: str = ""
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def passed(self) -> bool:
        """True if all tests passed."""
        return self.outcome == "passed"

    @property
    def may_differ(self) -> bool:
        """True if another try may end otherwise, as with all limits."""
        return self.outcome in ("cpu", "asleep", "memory", "ended")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a sample, and the same of its tests.

    cpu_seconds     that it may compute
    asleep_seconds  that it and its tests may sleep or wait in a row; waiting for a core does not count
    """

    cpu_seconds: int = 10
    asleep_seconds: float = 10.0
    memory_bytes: int = 512 << 20


def verdict_of_sample(answer: dict[str, Any], nonce: str, limits: Limits) -> Verdict:
    """The verdict on a sample in Python, whose tests end with the nonce."""
    ends = [answer["sample"], answer["tests"]]
    cpu, peak = (max(end[name] for end in ends) for name in ("cpu_seconds", "peak_bytes"))
    said: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        said = json.loads(answer["said"])
    words = " ".join(str(said.get("words") or "").split())[:300]
    if said == {"nonce": nonce}:
        return Verdict("passed", "", cpu, peak)
    if answer["over"] == "threads":
        return Verdict("memory", "over 256 threads", cpu, peak)
    if answer["over"]:
        return Verdict("asleep", f"slept over {limits.asleep_seconds:g} s", cpu, peak)
    # The kernel's clock of a limit differs from that of its accounts, by 16 % and more on a loaded machine.
    if any(end["signal"] == signal.SIGXCPU or end["cpu_seconds"] > limits.cpu_seconds for end in ends):
        return Verdict("cpu", f"over {limits.cpu_seconds} s of CPU time", cpu, peak)
    for kind, outcome in (("assertion", "failed"), ("error", "error")):
        if kind in said:
            name = " ".join(str(said[kind]).split())
            outcome = "memory" if name in _MEMORY_ERRORS else outcome
            return Verdict(outcome, f"{name}: {words}" if words else name, cpu, peak)
    died = next((end["signal"] for end in ends if end["signal"]), 0)
    return Verdict("ended", f"by signal {died}" if died else "before its tests", cpu, peak)


def verdict_of_program(answer: dict[str, Any], nonce: str, limits: Limits) -> Verdict:
    """The verdict on a program of another language, which writes the nonce after its last test."""
    if "compile" in answer:
        ran = answer["compile"]
        words = _over(ran, limits) if ran["over"] else _first_error(ran["output"])
        return Verdict("compile", words, ran["cpu_seconds"], ran["peak_bytes"])
    ran = answer["run"]
    return Verdict(*_outcome(ran, nonce, limits), ran["cpu_seconds"], ran["peak_bytes"])


def _outcome(ran: dict[str, Any], nonce: str, limits: Limits) -> tuple[str, str]:
    """The outcome of a program that was run, and its words."""
    status, output = ran["status"], ran["output"]
    words = _last_words(output)
    if ran["over"]:
        outcome = {"processes": "memory", "threads": "memory"}.get(ran["over"], ran["over"])
        return outcome, _over(ran, limits)
    if status == 0:
        return ("passed", "") if nonce in output else ("ended", "before its tests")
    if status == -signal.SIGXCPU or (status < 0 and ran["cpu_seconds"] > limits.cpu_seconds):
        return "cpu", f"over {limits.cpu_seconds} s of CPU time"
    if _SAYS_MEMORY.search(output):
        return "memory", words
    if _SAYS_ASSERTION.search(output) or _SAYS_FAILED.search(output) or (status == 1 and not output.strip()):
        return "failed", words
    if status == -signal.SIGKILL:
        return "ended", "by signal 9"
    return "error", f"by signal {-status}" if status < 0 and not words else words or f"exit status {status}"


def _over(ran: dict[str, Any], limits: Limits) -> str:
    """The limit that a command went over, in words."""
    return {
        "cpu": "over its CPU time", "asleep": f"slept over {limits.asleep_seconds:g} s",
        "memory": "over its memory",
        "threads": "over 256 threads", "processes": "over 64 processes at once, or 8,192 in all",
        "output": "printed over 64 MiB",
    }[ran["over"]]  # fmt: skip


def _first_error(output: str) -> str:
    found = _SAYS_ERROR.search(output)
    return _short(found[0] if found else output)


def _last_words(output: str) -> str:
    """The line that says most of an end: an assertion, an error, else the last."""
    found = _SAYS_ASSERTION.search(output) or _SAYS_ERROR.search(output)
    return _short(found[0] if found else output.strip().rpartition("\n")[2])


def _short(text: str) -> str:
    return " ".join(text.split())[:300]

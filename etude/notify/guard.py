"""The guard of a run: a process beside it that tells that it died or hangs, and starts it again if asked.

It reads the lease and the end of the journal alone, loads no torch, and ends when the run does.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import EtudeError, InputError
from etude.notify.channel import open_channels
from etude.notify.compose import Composer
from etude.notify.notifier import Notifier
from etude.processes import python_command, python_environment
from etude.recipe.notify import Notify
from etude.records import events
from etude.records.ending import Ending
from etude.records.lease import is_alive, is_locked
from etude.records.ledger import Ledger
from etude.records.store import Run
from etude.text import shorten

LOG = "guard.txt"  # of the run folder: what the processes print that a guard starts
_STOPPED = 75  # exit code of a run that was asked to stop
_USER_ERROR = 2
_TAIL_BYTES, _TAIL_LINES = 1 << 14, 10
_JOURNAL_BYTES = 1 << 16
_BUSY = 10  # times as long a silence is allowed to a process that computes
_TELL_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """The patience of a guard, in seconds.

    silence   without a sign of life, at least; 10 median steps if they are longer
    poll      between two looks
    grace     for a hung process to end before it is killed
    back_off  before the first restart; doubled for each further one, up to ten minutes
    restarts  at most
    """

    silence: float = 60.0
    poll: float = 1.0
    grace: float = 10.0
    back_off: float = 10.0
    restarts: int = 0


def start_guard(run: Run, restarts: int) -> None:
    """Start the guard of a run as a process of its own, which outlives this one and its terminal."""
    words = ["guard", str(run.path.absolute()), "--restart", str(restarts)]
    subprocess.Popen(
        python_command("etude", *words), env=python_environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


class Guard:
    """Watches one run on this machine; a run has one guard at a time."""

    def __init__(self, run: Run, limits: Limits, say: Callable[[str], None]) -> None:
        """Raises: InputError if the run is on another machine, or has a guard."""
        self._run, self._limits, self._say = run, limits, say
        host, here = run.lease.get("host"), socket.gethostname()
        if host is None:  # as one that came out of a mirror
            raise InputError(f"run {run.name} is {run.state}, and no process has it; see etude runs")
        if host != here:
            raise InputError(
                f"run {run.name} is on {shorten(host, 80)}, this is {here}; a guard watches runs of its own "
                "machine, so start it there"
            )
        self._lock = durable.open_lock(run.path / ".guard.lock")
        if not durable.lock(self._lock, run.path / ".guard.lock"):
            os.close(self._lock)
            raise InputError(f"run {run.name} has a guard; end that one first")
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0  # moment of the last restart
        self._restarts = 0
        self._told_silent = self._has_ended_it = False
        self._spent: deque[tuple[float, float]] = deque()  # moments, and processor seconds until then

    def watch(self) -> int:
        """Watch until the run has ended; returns 0 if it ended by itself, 1 if it died or failed."""
        gone = 0
        try:
            while True:
                code = self._child.poll() if self._child else None
                is_gone = code is not None if self._child else self._is_gone()
                # Once more, as a process that takes the run over writes the lease a moment later.
                gone = gone + 1 if is_gone else 0
                if gone > 1 or code is not None:
                    if (result := self._take_end(code)) is not None:
                        return result
                    gone = 0
                elif not gone:
                    self._look_for_silence()
                time.sleep(self._limits.poll)
        finally:
            os.close(self._lock)

    def _is_gone(self) -> bool:
        """True if the process is gone, or has let go of a run that ended."""
        lease = self._run.lease
        is_over = lease["state"] not in ("running", "paused") and not is_locked(self._run.path)
        return is_over or not is_alive(lease)

    def _take_end(self, code: int | None) -> int | None:
        """Tell of an end that nobody told of, and start the run again; returns what the watch ends with."""
        ledger, lease = self._run.ledger(), self._run.lease
        is_released = lease["state"] == "paused" and lease.get("left") is True
        is_stopped = lease["state"] == "stopped" or is_released or code == _STOPPED
        if lease["state"] == "finished" or code == 0 or (is_stopped and not self._has_ended_it):
            return 0
        last = _last_end(ledger)
        if _USER_ERROR in (code, last.exit_code if last else None):
            self._say("the run ended by an error of its input; it is not started again")
            if code == _USER_ERROR:
                self._tell(
                    ledger, "it cannot go on", "what it is given does not fit; run the command to see why"
                )
            return 1
        if lease["state"] != "failed" and not self._has_ended_it:
            how = f"exit code {code}" if code is not None else "its process is gone"
            self._tell(ledger, "it died", f"{how}; what was saved before is whole")
        if self._restarts >= self._limits.restarts:
            return 1
        return None if self._restart() else 0

    def _restart(self) -> bool:
        """Start the run again after a pause; False if it ended meanwhile by another hand."""
        pause = min(self._limits.back_off * 2**self._restarts, 600.0)
        self._restarts += 1
        self._say(f"starts the run again in {pause:g} s ({self._restarts} of {self._limits.restarts})")
        time.sleep(pause)
        self._child, self._told_silent, self._has_ended_it = None, False, False
        lease = self._run.lease
        while is_locked(self._run.path):
            if is_alive(self._run.lease):  # somebody resumed it
                return True
            time.sleep(self._limits.poll)
        if self._run.lease != lease and not self._run.is_unfinished:
            return False
        self._started = time.time()
        self._spent.clear()
        descriptor = os.open(
            self._run.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644
        )
        try:
            self._child = subprocess.Popen(
                python_command("etude", "resume", str(self._run.path)), env=python_environment(),
                stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(descriptor)
        return True

    def _look_for_silence(self) -> None:
        """Tell of a run that hangs, once, and end it where it is to be started again."""
        lease = self._run.lease
        if self._child is not None and lease["heartbeat"] < self._started:  # it has yet to take the run
            lease = {"state": "running", "pid": self._child.pid, "heartbeat": time.time()}
        silence = time.time() - max(_last_sign(self._run.path, self._run.lease), self._started)
        is_busy = self._is_busy(lease)
        if silence < self._limits.silence:
            self._told_silent = False
            return
        limit = max(self._limits.silence, 10 * _median_step(self._run.path)) * (_BUSY if is_busy else 1)
        if silence < limit or self._told_silent or lease["state"] not in ("running", "paused"):
            return
        self._told_silent = True
        does = "end and start it again" if self._restarts < self._limits.restarts else "end it, then resume"
        self._tell(self._run.ledger(), "it hangs", f"no sign of life for {silence:.0f} s; {does}")
        if self._restarts < self._limits.restarts:
            self._has_ended_it = True
            _end(lease, self._limits.grace)

    def _is_busy(self, lease: dict[str, Any]) -> bool:
        """True if the process used a hundredth of the last while, half a silence, or more."""
        now = time.monotonic()
        self._spent.append((now, _cpu_seconds(lease)))
        while len(self._spent) > 2 and now - self._spent[1][0] >= self._limits.silence / 2:
            self._spent.popleft()
        (then, before), (_, spent) = self._spent[0], self._spent[-1]
        return spent - before > 0.01 * (now - then)

    def _tell(self, ledger: Ledger, what: str, advice: str) -> None:
        """Send one message through the channels of the run, and write it down."""
        self._say(f"{what}: {advice}")
        settings = _channels_of(self._run, ledger)
        message = Composer(self._run, ledger).died(
            what, _last_sign(self._run.path, self._run.lease), _tail(self._run.path / "log.txt"), advice
        )
        try:
            notifier = Notifier(self._run, ledger, settings, open_channels(settings), self._say)
            notifier.tell(message)
            notifier.close(_TELL_SECONDS)
        except (EtudeError, OSError) as error:
            self._say(f"nothing could be told: {error}")


def _channels_of(run: Run, ledger: Ledger) -> list[Notify]:
    """The channels of the last attempt, which need not be those that the run began with."""
    attempts = [each.event for each in ledger.entries if isinstance(each.event, events.Attempt)]
    found = attempts[-1].environment.get("notify") if attempts else None
    return run.recipe.notify if found is None else [Notify.model_validate(each) for each in found]


def _last_end(ledger: Ledger) -> events.Control | None:
    """The decision that ended the last attempt, if it wrote one."""
    for entry in reversed(ledger.entries):
        if isinstance(entry.event, events.Attempt):
            return None
        if isinstance(entry.event, events.Control) and Ending.of(entry.event):
            return entry.event
    return None


def _last_sign(path: Path, lease: dict[str, Any]) -> float:
    """The moment of the last heartbeat, or of the last record if that was later."""
    written = 0.0
    with contextlib.suppress(OSError):
        written = os.lstat(path / "journal.jsonl").st_mtime
    return max(float(lease.get("heartbeat", 0.0)), written)


def _median_step(path: Path) -> float:
    """Seconds of a median step at the end of the journal; 0 before the first."""
    seconds = []
    for line in _end_of(path / "journal.jsonl", _JOURNAL_BYTES):
        with contextlib.suppress(ValueError, KeyError, RecursionError):
            event = events.from_json(json.loads(line)) if b'"type": "step"' in line else None
            if isinstance(event, events.Step):
                seconds.append(event.seconds)
    return statistics.median(seconds) if seconds else 0.0


def _tail(path: Path) -> list[str]:
    return [line.decode("utf-8", "replace") for line in _end_of(path, _TAIL_BYTES)[-_TAIL_LINES:]]


def _end_of(path: Path, most_bytes: int) -> list[bytes]:
    """The whole lines at the end of a file; none of what is no plain file."""
    try:
        with durable.open_plain(path, follow=False) as file:
            start = max(file.seek(0, 2) - most_bytes, 0)
            file.seek(start)
            lines = file.read(most_bytes).splitlines()
            return lines[1:] if start else lines
    except (InputError, OSError):
        return []


def _cpu_seconds(lease: dict[str, Any]) -> float:
    """Time of the processor that a run's process and those that it started have used."""
    import psutil

    if not is_alive(lease):
        return 0.0
    spent = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(int(lease["pid"]))
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = each.cpu_times()
                spent += times.user + times.system
    return spent


def _end(lease: dict[str, Any], grace: float) -> None:
    """End the process that wrote a lease: by SIGTERM, after a grace by SIGKILL; never one of its number."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(int(lease["pid"]))
        if "started" not in lease or not is_alive(lease):  # a file without it could name any process
            return
        process.terminate()  # psutil compares the start of the process before each signal
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(grace)
            return
        process.kill()

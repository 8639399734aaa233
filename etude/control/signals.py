"""Ctrl-C, SIGTERM and SIGHUP: the first asks a run to save and stop, the second stops it now.

SIGUSR1, which SLURM sends some time before the limit, asks a run to save and end as paused.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from etude.interruption import Abandoned

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_LEAVING = SIGNALS[1:]  # all but Ctrl-C
PAUSES = (signal.SIGUSR1.name,)  # names of those that never interrupt, and after which a run is paused
_BURST_SECONDS = 2.0
at_exit: list[Callable[[], None]] = []  # called before a process ends at once, without its clean-up
_came: list[float] = []  # moments of the Ctrl-C of `one_interrupt`, while it is entered


def is_ignored(number: int) -> bool:
    """True if this process was started to ignore a signal, as by `nohup` and by shells in the background."""
    return signal.getsignal(number) is signal.SIG_IGN


def signal_title(name: str) -> str:
    """A signal as the person who sent it knows it."""
    return {"SIGINT": "Ctrl-C"}.get(name, name)


def stopping(signal: str) -> str:
    """The answer to a signal that asks a run to stop."""
    again = "" if signal in PAUSES else "; once more stops at once"
    return f"{signal_title(signal)}: saves and stops after this step{again}"


class StopSignals:
    """While entered, `requested` names the signal that asked for the end; a second one interrupts.

    Several may be entered at once, in runs that share a process: each is told of a signal. Outside the main
    thread (some notebooks) signals stay as they are, and so does one that is ignored.

    tell: called with that name at once, between any two lines of the program; it must not print by a stream
    """

    def __init__(self, tell: Callable[[str], None] = lambda name: None) -> None:
        self.requested: str | None = None
        self.moment = 0.0  # when it came, of the monotonic clock
        self._tell = tell

    def __enter__(self) -> "StopSignals":
        """Raises: KeyboardInterrupt if one was lost before: Python drops those of its own clean-up."""
        if _came:
            raise KeyboardInterrupt
        if threading.current_thread() is threading.main_thread():
            if not _entered:
                _before.update(
                    (number, signal.signal(number, _receive)) for number in SIGNALS if not is_ignored(number)
                )
            _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _entered:
            _entered.remove(self)
            while _before and not _entered:
                signal.signal(*_before.popitem())

    def receive(self, name: str) -> bool:
        """Note the first signal, and tell of it; False for a later one that is to interrupt.

        What comes ahead of an end counts as none: the end itself is the first then.
        """
        is_first = self.requested is None or self.requested in PAUSES
        if is_first and name != self.requested:
            self.requested = name
            self.moment = time.monotonic()
            self._tell(name)
        return is_first or name in PAUSES


_entered: list[StopSignals] = []
_before: dict[int, Any] = {}  # handlers that were there


def _receive(number: int, frame: FrameType | None) -> None:
    news = [each.receive(signal.Signals(number).name) for each in list(_entered)]  # all of them are told
    if any(news):
        return
    interrupt = _before.get(signal.SIGINT)
    if callable(interrupt):
        interrupt(number, frame)
    else:
        raise KeyboardInterrupt


def _forget() -> None:
    """Leave the handlers behind in a process that this one forked: it is no run, and ends when it is told."""
    _entered.clear()
    while _before:
        signal.signal(*_before.popitem())
    for number in _LEAVING:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def leave_before_start() -> Iterator[None]:
    """While entered and no run is, the first signal that asks for the end raises Abandoned with its name.

    Without it that signal would kill the process; a second SIGTERM or SIGHUP does.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _leave) for number in _LEAVING if not is_ignored(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    for each in _LEAVING:
        if not is_ignored(each):
            signal.signal(each, signal.SIG_IGN if signal.Signals(each).name in PAUSES else signal.SIG_DFL)
    raise Abandoned(name)


class PassedOn:
    """While entered, each signal that would end this process is given to a function in place of that."""

    def __init__(self, take: Callable[[int], None]) -> None:
        self._take = take
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, lambda number, _: self._take(number))
            for number in SIGNALS
            if not is_ignored(number)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def one_interrupt() -> Iterator[list[float]]:
    """While entered, a burst of Ctrl-C raises KeyboardInterrupt once, and leaves the cleaning up whole.

    One that comes later than that ends the process as it is. Yields the moments of those that came.
    """

    def interrupt(*_: object) -> None:
        _came.append(time.monotonic())
        if len(_came) == 1:
            raise KeyboardInterrupt
        if _came[-1] - _came[0] > _BURST_SECONDS:
            for leave in list(at_exit):
                leave()
            os._exit(128 + signal.SIGINT)

    _came.clear()
    if threading.current_thread() is not threading.main_thread() or is_ignored(signal.SIGINT):
        yield _came
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield _came
    finally:
        signal.signal(signal.SIGINT, before)
        _came.clear()

"""Points at which long work looks whether it is still wanted, and leaves off if it is not."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_check: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


class Abandoned(BaseException):
    """Work was left before its end, as this process is asked to end; nothing of it is kept.

    It is no `Exception`, so that nobody's care for errors takes it for one.
    """


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """While entered, `check` is called at each point of this thread's work; it may raise Abandoned."""
    before = _check.set(check)
    try:
        yield
    finally:
        _check.reset(before)


def interruption_point() -> None:
    """Leave the work here, if that is asked for. Raises: Abandoned."""
    _check.get()()

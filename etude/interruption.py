"""Points at which long work looks whether it is still wanted, and leaves off if it is not."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from threading import Event, Thread
from typing import Any, TypeVar

_T = TypeVar("_T")
_LOOK_SECONDS = 0.1
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


def with_points(items: Iterable[_T]) -> Iterator[_T]:
    """The items, with a point before each."""
    for item in items:
        interruption_point()
        yield item


def abandonable(work: Callable[[], _T]) -> _T:
    """The result of work of a library, which has no points: it is done in a thread, and this one looks.

    Work that is left goes on for nobody until it ends, or the process. Raises: what it raises; Abandoned.
    """
    done, made = Event(), dict[str, Any]()

    def do() -> None:
        try:
            made["result"] = work()
        except BaseException as error:
            made["error"] = error
        finally:
            done.set()

    Thread(target=do, daemon=True).start()
    while not done.wait(_LOOK_SECONDS):
        interruption_point()
    if "error" in made:
        raise made["error"]
    result: _T = made["result"]
    return result

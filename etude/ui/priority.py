"""The priority of the server: after a training beside it, though not of those trainings that it starts."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_NICE = 10
_first: list[ThreadPoolExecutor] = []


def step_back() -> None:
    """Let this thread, and all that it starts from now on, run after others on Linux; elsewhere nothing.

    Only root could raise a priority again, so one thread keeps it for `at_first_priority`.
    """
    if sys.platform != "linux" or _first:  # elsewhere the priority is that of all threads of a process
        return
    starter = ThreadPoolExecutor(1, "starter")
    starter.submit(os.getpid).result()  # the thread is there, with the priority as it is now
    _first.append(starter)
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def at_first_priority(start: Callable[[], T]) -> T:
    """Call a function that starts a process, at the priority from before `step_back`; returns its result."""
    return _first[0].submit(start).result() if _first else start()

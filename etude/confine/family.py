"""A confined process and all processes that it starts: none is started, and none is left, unseen.

The kernel asks this process before each start (seccomp's user notification), so that a bomb of forks stops at
a number and, once nobody answers, at none. It needs no namespace, no root and no control group.
Source: docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import contextlib
import errno
import fcntl
import os
import signal
import struct
from dataclasses import dataclass

from etude.confine import kernel

MOST_AT_ONCE, _MOST_IN_ALL = 64, 8_192
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_QUESTION_BYTES = 80
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class State:
    """A process, or several together.

    is_running  one of them runs, or waits for a core or a disk
    seconds     of CPU time
    """

    is_running: bool = False
    seconds: float = 0.0
    threads: int = 0
    bytes: int = 0


def state(process: int) -> State:
    """The state of a process; nothing of one that has ended."""
    try:
        place = os.open(f"/proc/{process}/stat", os.O_RDONLY)
    except OSError:
        return State()
    try:
        fields = os.read(place, 4096).rpartition(b")")[2].split()
    except OSError:
        return State()
    finally:
        os.close(place)
    ticks = int(fields[11]) + int(fields[12])
    return State(fields[0] in (b"R", b"D"), ticks / _TICKS, int(fields[17]), int(fields[21]) * _PAGE)


class Family:
    """All processes below this one, which adopts orphans; it has no others.

    listener  descriptor of the kernel's questions, None where they are not asked
    """

    def __init__(self, listener: int | None = None) -> None:
        """Adopt what is left behind from now on."""
        if kernel.architecture() is not None:
            kernel.adopt_orphans()
        self.listener = listener
        self.is_over = False
        self._started = 0
        self._room = MOST_AT_ONCE
        self._seconds: dict[int, float] = {}

    def answer(self) -> None:
        """Answer one question: a start is allowed up to a number at once, and a number in all."""
        assert self.listener is not None
        question = bytearray(_QUESTION_BYTES)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, question)
        except OSError:  # who asked has ended
            return
        if self._room <= 0:
            self._room = MOST_AT_ONCE - len(_below(os.getpid()))
        self._started += 1
        self.is_over = self.is_over or self._room <= 0 or self._started > _MOST_IN_ALL
        self._room -= 1
        (number,) = struct.unpack_from("=Q", question)
        error, flags = (-errno.EAGAIN, 0) if self.is_over else (0, _CONTINUE)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.listener, _SEND, struct.pack("=QqiI", number, 0, error, flags))

    def state(self) -> State:
        """All of them together; the time of those that were seen and have ended counts too."""
        found = {process: state(process) for process in _below(os.getpid())}
        for process, each in found.items():
            self._seconds[process] = max(each.seconds, self._seconds.get(process, 0.0))
        return State(
            any(each.is_running for each in found.values()),
            sum(self._seconds.values()),
            sum(each.threads for each in found.values()),
            sum(each.bytes for each in found.values()),
        )

    def end(self) -> None:
        """Kill all. Without an answer no process can start another, so that one pass reaches each."""
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None
        while living := _below(os.getpid()):
            for process in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)


def _below(process: int) -> list[int]:
    """The children of a process, theirs, and so on; zombies that nobody has waited for too."""
    found, parents = [], [process]
    while parents:
        children = _children(parents.pop())
        found += children
        parents += children
    return found


def _children(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found

"""The system calls of every write, where a test can make the n-th one fail or kill the process."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from etude.errors import StorageError

T = TypeVar("T")
CHUNK_BYTES = 8 << 20


@dataclass
class FaultPlan:
    """Make system call number `at` (from 0) fail with `error`, or kill the process if `error` is None.

    `calls` collects (name, file name) of every call, so that a run without a fault tells how many points
    there are. `once` lets the calls after the fault through; a full disk stays full.
    """

    at: int = -1
    error: int | None = None
    once: bool = True
    calls: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def faults(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Apply a fault plan to every write within the block."""
    global _plan  # noqa: PLW0603 - the plan must reach writes in every thread of the process
    previous, _plan = _plan, plan
    try:
        yield plan
    finally:
        _plan = previous


_plan: FaultPlan | None = None


def call(name: str, path: Path, action: Callable[[], T]) -> T:
    """The result of a system call of a write. Raises: OSError, also where a fault plan asks for it."""
    if _plan is not None:
        index = len(_plan.calls)
        _plan.calls.append((name, path.name))
        if index == _plan.at or (index > _plan.at >= 0 and not _plan.once):
            if _plan.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(_plan.error, os.strerror(_plan.error or errno.EIO), str(path))
    return action()


def write_all(descriptor: int, view: memoryview, path: Path) -> None:
    """Write all bytes to a descriptor. Raises: OSError."""
    while len(view):
        piece = view[:CHUNK_BYTES]
        view = view[call("write", path, lambda piece=piece: os.write(descriptor, piece)) :]  # type: ignore[misc]


def storage_error(path: Path, error: OSError) -> StorageError:
    """The error of a write that failed, with the advice for its cause."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: (
            "the file is larger than this system allows; raise the limit and run the same command again"
        ),
        errno.EROFS: "the disk is mounted read-only; mount it for writing and run the same command again",
        errno.EACCES: "no permission; choose a folder that you may write to",
        errno.EISDIR: "a folder is in its place; remove it, and run the same command again",
        errno.ENOTDIR: "a file is where a folder should be; move it, or choose another folder",
        errno.EIO: "the disk failed; check it, then run the same command again",
    }.get(error.errno or 0, "run the same command again once this is solved")
    return StorageError(f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}; {advice}")

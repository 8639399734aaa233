"""What a server of attacked commands imports: a process without charts, whose device is not measured, and a
disk that can be made to fail.
"""

import errno
import fcntl
import itertools
import os
import time
from pathlib import Path

import etude.report.write
import etude.session
import etude.sweep.controller
import etude.sweep.deliverables
import etude.sweep.local
import etude.sweep.measure
from tests import undrawn  # noqa: F401 - nobody looks at the charts
from tests.phases import Phases
from tests.release.disk import FAULTS, Disk

etude.session.measure_matrix_rate = lambda device, dtype: 1e10  # type: ignore[attr-defined]
etude.sweep.local.CAN_FORK = False  # a starter of trials would load more for each command


def arm(root: str, at: int, fault: str, told: str) -> None:
    """Have a call to a folder meet a fault, by its number and the name of the fault."""
    Disk(Path(root), at, FAULTS[fault], Path(told)).__enter__()


def mark(file: str) -> None:
    """Have the phases of this command marked in a file, and its trials be forks."""
    etude.sweep.local.CAN_FORK = True
    Phases(Path(file)).mark()


def jump(seconds: float, after: int = 60) -> None:
    """Have the clock jump after so many looks at it."""
    real, looks = time.time, itertools.count()
    time.time = lambda: real() + (seconds if next(looks) >= after else 0)


def unlock() -> None:
    """Have a file system that knows no locks."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse


def note(root: str, file: str) -> None:
    """Have the calls to a folder written into a file when this process ends."""
    disk, leave, place = Disk(Path(root)).__enter__(), os._exit, Path(file).absolute()

    def tell(code: int) -> None:
        calls = [f"{call.to_json()}\n" for call in list(disk.calls)]
        if not place.exists() or len(place.read_text().splitlines()) < len(calls):  # of its forks the longest
            place.write_text("".join(calls))
        leave(code)

    os._exit = tell

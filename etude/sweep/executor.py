"""The executor of a sweep: what starts, signals and watches the processes of its stages."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from etude.sweep.dispatch import Device, Joined, Lost
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep
from etude.sweep.local import Exit, LocalProcesses


class Processes(Protocol):
    """Starter and watcher of the processes of stages.

    are_known  whether the memory of all trials is, set before the devices are asked for
    """

    are_known: bool

    @property
    def devices(self) -> list[Device]:
        """The devices that are there at first."""

    def start(self, name: str, device: Device, words: Sequence[str], log: Path) -> None:
        """Start `etude WORDS` for a stage on a device; what it says is added to a log."""

    def signal(self, number: int) -> None:
        """Send a signal to all that run."""

    def poll(self, seconds: float = 0.0) -> list[Exit | Joined | Lost]:
        """The processes that have ended and the devices that have come and gone since the last call.

        seconds: to wait at most until there is something
        """


@contextlib.contextmanager
def open_processes(sweep: Sweep, folder: SweepFolder, tell: Callable[[str], None]) -> Iterator[Processes]:
    """The processes of a sweep while entered: here, or on its Ray cluster."""
    if sweep.file.resources.executor == "ray":
        from etude.sweep.ray import join_cluster

        with join_cluster(sweep.file.resources, folder, tell) as processes:
            yield processes
    else:
        with contextlib.closing(LocalProcesses(sweep)) as processes:
            yield processes

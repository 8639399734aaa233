"""The place of this process among the ranks of a run, by its environment, and its bond with the launcher."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from etude.control.signals import SIGNALS
from etude.errors import InputError

# Set by etude's own launcher: its private folder, and the descriptor of this rank's socket to it.
FOLDER, SOCKET = "ETUDE_RANKS_FOLDER", "ETUDE_RANKS_SOCKET"
LOST = "lost"  # in that folder: which rank ended the others, and how
# A beat says that this process lives, and whether it has done anything since the last.
WORKS, LIVES = b"w", b"."
IDLE_SECONDS = 600.0  # as long as a rank may keep the others waiting in a step
SILENCE_SECONDS = 40.0  # as long as a rank, which says every second that it lives, may say nothing
_BEAT_SECONDS, _TELL_SECONDS = 1.0, 2.0
_SCHEDULERS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
_ADVICE = "unset it, or start the ranks with --devices or torchrun"


@dataclass(frozen=True)
class Place:
    """One process is rank 0 of 1.

    folder  where the ranks that etude started find each other; None under torchrun
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    folder: Path | None = None


def read_place() -> Place:
    """The place that the environment gives this process.

    Raises: InputError if its variables contradict each other.
    """
    size, rank = _number("WORLD_SIZE", least=1), _number("RANK")
    if size is None and rank:
        raise InputError(f"RANK is {rank} in the environment, but WORLD_SIZE is not set; {_ADVICE}")
    if size is None or (size == 1 and not rank):
        return Place()
    if rank is None:
        raise InputError(f"WORLD_SIZE is {size} in the environment, but RANK is not set; {_ADVICE}")
    local_rank = _number("LOCAL_RANK") or 0
    for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank)):
        if value >= size:
            raise InputError(
                f"{name} is {value} in the environment; it must be below WORLD_SIZE, {size}; {_ADVICE}"
            )
    folder = os.environ.get(FOLDER)
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"{FOLDER} is {folder[:80]!r} in the environment, which is no folder; {_ADVICE}")
    if folder is None and not (os.environ.get("MASTER_ADDR") and _number("MASTER_PORT", most=65535)):
        raise InputError(
            f"WORLD_SIZE is {size}, but MASTER_ADDR and MASTER_PORT do not say where rank 0 is; {_ADVICE}"
        )
    return Place(rank, local_rank, size, Path(folder) if folder else None)


def describe_siblings() -> str | None:
    """A line on processes that a scheduler started beside this one, which nothing made ranks of one run."""
    for name, starter in _SCHEDULERS.items():
        count = os.environ.get(name, "")
        if count.isascii() and count.isdecimal() and len(count) < 8 and int(count) > 1:
            return (
                f"{starter} started {int(count):,} processes, each on its own, as it sets no WORLD_SIZE: "
                "give each another recipe, or let it start torchrun, which makes them ranks of one run"
            )
    return None


def follow_launcher() -> None:
    """Tell the launcher of a rank every second that this process lives, and end when it does.

    A beat also says whether the process works: a main thread that hangs would not keep the beats from coming.
    Raises: InputError if there is no socket to it.
    """
    descriptor = os.environ.pop(SOCKET, None)  # a program that this one starts is no rank
    if descriptor is None:
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by the launcher until they can be answered
    try:
        launcher = socket.socket(fileno=int(descriptor))
    except (ValueError, OSError):
        raise InputError(
            f"{SOCKET} is {descriptor[:40]!r} in the environment, which is no socket of a launcher; {_ADVICE}"
        ) from None
    launcher.set_inheritable(False)
    # A rank is no foreground process of its terminal; with `stty tostop` a line of it would stop it for ever.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(launcher,), name="launcher", daemon=True).start()


def began_torchrun() -> float | None:
    """The moment at which the torchrun of this rank began, which starts ranks again by the same words."""
    import psutil

    return psutil.Process(os.getppid()).create_time() if "TORCHELASTIC_RUN_ID" in os.environ else None


def watch_main_thread(rank: int, tell: Callable[[str], None], idle_seconds: float = IDLE_SECONDS) -> None:
    """End this rank of torchrun, which does not watch it, once it has done nothing for so long.

    tell: passes the reason on to the other ranks.
    """

    def watch() -> None:
        effort, idle = _Effort(), 0
        while idle * _BEAT_SECONDS < idle_seconds:
            time.sleep(_BEAT_SECONDS)
            idle = 0 if effort.is_new() else idle + 1
        reason = f"it did nothing for {idle_seconds:.0f} s"
        tell(f"rank {rank} hung, and was ended: {reason}")
        time.sleep(_TELL_SECONDS)
        with contextlib.suppress(OSError):
            os.write(2, f"error: rank {rank} hung, and was ended: {reason}; start it again\n".encode())
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _follow(launcher: socket.socket) -> None:
    effort = _Effort()
    try:
        while not select.select([launcher], [], [], _BEAT_SECONDS)[0]:  # readable when the launcher is gone
            launcher.send(WORKS if effort.is_new() else LIVES)
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


class _Effort:
    """The work of this process, and whether it has gone on since the last look.

    Work is time of the processor: of the main thread, of threads that the program waits for at its end (those
    that only look on are daemons), and of the programs that it started. What waits for other ranks in a sum
    of torch, which has a limit of its own, is at work too.
    """

    def __init__(self) -> None:
        self._own = self._of_children = -1.0

    def is_new(self) -> bool:
        own, before = self._spent(), self._own
        self._own = own
        if own != before or self._is_in_sum():
            return True
        of_children, before = self._spent_by_children(), self._of_children
        self._of_children = of_children
        return of_children != before

    @staticmethod
    def _spent() -> float:
        """Nanoseconds of the processor."""
        spent = 0
        for thread in threading.enumerate():
            if thread.daemon:
                continue
            try:
                spent += int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_bytes().split()[0])
            except OSError:
                if not Path("/proc/self/schedstat").exists():  # another system: of all threads but this one
                    return time.process_time_ns() - time.thread_time_ns()
        return spent

    @staticmethod
    def _spent_by_children() -> float:
        """Seconds of the processor; one that has ended changes the sum, too."""
        import psutil

        spent = 0.0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                spent += times.user + times.system
        return spent

    @staticmethod
    def _is_in_sum() -> bool:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        module = str(frame.f_globals.get("__name__")) if frame else ""
        return module.startswith(("torch.distributed", "etude.engine.world"))


def _number(name: str, least: int = 0, most: int = 10**7 - 1) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and least <= int(text) <= most):
        raise InputError(
            f"{name} is {text[:40]!r} in the environment; it must be a number from {least} to {most}; "
            + _ADVICE
        )
    return int(text)

"""The place of this process among the ranks of a run, as the environment says, and its bond with the launcher."""

import os
import select
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from etude.control.signals import SIGNALS
from etude.errors import InputError

# Set by etude's own launcher: its private folder, and the descriptor of this rank's socket to it.
FOLDER, SOCKET = "ETUDE_RANKS_FOLDER", "ETUDE_RANKS_SOCKET"
_BEAT_SECONDS = 1.0
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
    """The place that the environment gives this process. Raises: InputError if its variables contradict each other."""
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
            raise InputError(f"{name} is {value} in the environment; it must be below WORLD_SIZE, {size}; {_ADVICE}")
    folder = os.environ.get(FOLDER)
    if folder is None and not (os.environ.get("MASTER_ADDR") and _number("MASTER_PORT")):
        raise InputError(f"WORLD_SIZE is {size}, but MASTER_ADDR and MASTER_PORT do not say where rank 0 is; {_ADVICE}")
    return Place(rank, local_rank, size, Path(folder) if folder else None)


def follow_launcher() -> None:
    """As a rank that etude started: tell the launcher every second that this process lives, and end when it does."""
    descriptor = os.environ.pop(SOCKET, None)  # a program that this one starts is no rank
    if descriptor is None:
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the launcher blocked them until they can be answered
    launcher = socket.socket(fileno=int(descriptor))
    launcher.set_inheritable(False)
    # A rank is no foreground process of its terminal; with `stty tostop` a line of it would stop the rank for ever.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(launcher,), name="launcher", daemon=True).start()


def _follow(launcher: socket.socket) -> None:
    try:
        while not select.select([launcher], [], [], _BEAT_SECONDS)[0]:  # readable when the launcher is gone
            launcher.send(b".")
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _number(name: str, least: int = 0) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and int(text) >= least):
        raise InputError(f"{name} is {text[:40]!r} in the environment; it must be a number from {least}; {_ADVICE}")
    return int(text)

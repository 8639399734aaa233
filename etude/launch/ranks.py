"""Ranks on one machine: the same command in several processes, which meet in a private folder.

torchrun's store listens on every address of the machine and unpickles what it is sent. Here the ranks find
each other in files, and what they exchange stays on the loopback interface.
"""

import contextlib
import math
import os
import select
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from etude.control.neighbour import Neighbour
from etude.control.ranks import FOLDER, LOST, SOCKET, WORKS, read_place
from etude.control.signals import SIGNALS, is_ignored
from etude.durable import temporary_folder, write_file
from etude.errors import FaultError, InputError, LostRankError, ShortageError, StorageError
from etude.processes import python_command, python_environment
from etude.recipe.life import Life
from etude.recipe.schema import Recipe
from etude.records.environment import describe_machine
from etude.records.store import Run
from etude.text import parse_duration, plural

_ANYWHERE = 4  # ranks that any machine may be asked for, to try
_LOOPBACK_SECONDS = 10.0
_LOOK_SECONDS = 2.0  # of silence, from which a rank is looked at
_GRACE_SECONDS = 10.0  # for the others to record how they ended
_MOST_SHORTAGES = 40  # a micro-batch cannot be halved so often
_WENT_ON = (LostRankError.exit_code, ShortageError.exit_code)  # of a rank 0 that wrote down a way out
RESUMABLE = 75  # the exit code of a run that the same command continues


@dataclass(frozen=True)
class Ended:
    """The end of a run that was executed, and the exit code that it gives a command.

    reason            None where there is none, or where a rank has printed it
    run               None where its ranks did not finish it
    was_asked         True if a signal asked for the end, even after the last step
    is_cursor_hidden  True if rank 0 could not leave its terminal as it was
    """

    code: int
    reason: str | None = None
    run: Run | None = None
    was_asked: bool = False
    is_cursor_hidden: bool = False


def has_own_ranks(recipe: Recipe) -> bool:
    """True if a recipe wants ranks that have yet to be started."""
    return recipe.train.devices > 1 and read_place().size == 1


def run_ranks(recipe: Recipe, words: list[str]) -> Ended:
    """Run `etude WORDS` in the ranks of a recipe until the last has ended, and pass signals on to them.

    A rank that fails, is killed, is silent for `run.lost_after` without using the processor, or does nothing
    for `run.hung_after` ends the others too, which are told why; when this process ends, however it does, the
    ranks end at once. After a rank had no memory for what all do together, and rank 0 has written down a way
    out, they start again.
    Raises: InputError for more ranks than this machine has places for; FaultError without loopback.
    """
    _require_places(recipe.train.devices)
    _require_loopback()
    for _ in range(_MOST_SHORTAGES):
        ended = _run_once(recipe, words)
        if ended.code != ShortageError.exit_code:
            break
        words = [word for word in words if word != "--new"]
    return ended


def _require_places(ranks: int) -> None:
    machine = describe_machine()
    cores, gpus = machine["cores"] or 1, len(machine["gpus"])
    if ranks > max(cores, gpus, _ANYWHERE):
        here = " and ".join([plural(cores, "core"), *([plural(gpus, "GPU")] if gpus else [])])
        raise InputError(
            f"train.devices is {ranks:,}, a process each, and this machine has {here}; use "
            f"{max(cores, gpus, _ANYWHERE)} at most, or start as many as you like by torchrun"
        )


def _require_loopback() -> None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), _LOOPBACK_SECONDS).close()
    except OSError as error:
        raise FaultError(
            "ranks exchange over the loopback interface, which does not answer here "
            f"({error.strerror or error}); bring it up (ip link set lo up), or use one device"
        ) from None


def _run_once(recipe: Recipe, words: list[str]) -> Ended:
    ranks = recipe.train.devices
    crew: list[_Rank] = []
    with temporary_folder("etude-ranks-") as folder, _forward_signals(crew) as received:
        try:
            for rank in range(ranks):
                crew.append(_start(rank, ranks, words, folder))
            culprit = _wait(crew, received, recipe.run, folder)
        finally:
            for member in crew:
                member.end()
        return _judge(crew, culprit, received, words, folder)


@dataclass
class _Rank:
    """A rank that was started, and the seconds since its last sign of life and of work."""

    number: int
    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    silence: float = 0.0
    idleness: float = 0.0
    is_hung: bool = False
    neighbour: Neighbour | None = None
    seen: str = ""  # its process, when it was found to be silent

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def end(self) -> None:
        if self.code is None:
            self.process.kill()
            self.process.wait()
        self.socket.close()


def _start(rank: int, ranks: int, words: list[str], folder: Path) -> _Rank:
    ours, theirs = socket.socketpair()
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    environment = {
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // ranks, 1)),
        **python_environment(),
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        FOLDER: str(folder), SOCKET: str(theirs.fileno()),
        "GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": f"={loopback}",
    }  # fmt: skip
    # A rank starts with its signals blocked, until it can answer them; in a process group of its own, so that
    # Ctrl-C reaches it once, through this process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process = subprocess.Popen(
            python_command("etude", *words), env=environment, stdin=subprocess.DEVNULL, process_group=0,
            pass_fds=[theirs.fileno()],
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return _Rank(rank, process, ours, neighbour=Neighbour.of(process.pid))


@contextlib.contextmanager
def _forward_signals(crew: list[_Rank]) -> Iterator[list[int]]:
    """Pass signals on to the ranks; yields the numbers of those that came."""
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for member in crew:
            if member.code is None:
                member.process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS if not is_ignored(number)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(crew: list[_Rank], received: list[int], life: Life, folder: Path) -> _Rank | None:
    """Wait until all have ended; returns the rank that ended the others, which they read in the folder.

    Raises: StorageError if the folder is gone.
    """
    silence_seconds, idle_seconds = map(parse_duration, (life.lost_after, life.hung_after))
    culprit, deadline, last = None, math.inf, time.monotonic()
    while living := [member for member in crew if member.code is None]:
        if not folder.is_dir():
            raise StorageError(f"{folder}, where the ranks meet, is gone; the same command continues")
        speaking = select.select([member.socket for member in living], [], [], 1.0)[0]
        # Time in which this process was stopped too is nobody's silence.
        now = time.monotonic()
        passed, last = min(now - last, 2.0), now
        for member in living:
            member.silence += passed
            member.idleness += passed
            if member.socket in speaking:
                member.silence = 0.0
                beats = b""
                with contextlib.suppress(ConnectionError):
                    beats = member.socket.recv(4096)
                if WORKS in beats:
                    member.idleness = 0.0
                if not beats:
                    member.process.wait()
            near = member.neighbour
            if member.silence > _LOOK_SECONDS and near and near.is_at_work():  # slow, on a busy machine
                member.silence = 0.0
            is_overdue = member.silence > silence_seconds or member.idleness > idle_seconds
            if is_overdue and member.code is None and not member.is_hung:
                member.is_hung = True
                member.seen = f", {near.seen}" if near and member.silence > silence_seconds else ""
                member.process.kill()
            if member.code not in (None, 0, RESUMABLE):
                deadline = min(deadline, now + _GRACE_SECONDS)
                if culprit is None and member.code != LostRankError.exit_code:
                    culprit = member
                    write_file(folder / LOST, _cause(member, folder).encode())
        if len(received) > 1:
            deadline = min(deadline, now + _GRACE_SECONDS)
        if now > deadline:
            for member in living:
                member.end()
    return culprit


def _judge(
    crew: list[_Rank], culprit: _Rank | None, received: list[int], words: list[str], folder: Path
) -> Ended:
    codes = [member.code or 0 for member in crew]
    if RESUMABLE in codes and not any(code not in (0, RESUMABLE) for code in codes):
        return Ended(RESUMABLE)
    if not any(codes):
        return Ended(0)
    is_short = culprit is not None and culprit.code == ShortageError.exit_code
    if is_short and not received and codes[0] in (*_WENT_ON, FaultError.exit_code):
        return Ended(ShortageError.exit_code if codes[0] in _WENT_ON else FaultError.exit_code)
    if culprit is not None and codes[0] == 0:  # which writes all there is to write
        late = f"rank {culprit.number} ended with code {culprit.code} after the run was written down"
        return Ended(0, late)
    is_cursor_hidden = crew[0].code is not None and crew[0].code < 0
    if received and all(code <= 0 or code in (RESUMABLE, 130, LostRankError.exit_code) for code in codes):
        name = signal.Signals(received[0]).name
        reason = f"stopped at once by {name}" if codes[0] < 0 else None
        return Ended(128 + received[0], reason, is_cursor_hidden=is_cursor_hidden)
    code = next((code for code in (2, RESUMABLE) if culprit and culprit.code == code), 1)
    hint = f"continue with: {shlex.join(['etude', *(word for word in words if word != '--new')])}"
    # Rank 0 has said why it refused; the others refused the same.
    reason = None if code == codes[0] == InputError.exit_code else _reason(culprit, folder, hint)
    return Ended(code, reason, is_cursor_hidden=is_cursor_hidden)


def _reason(culprit: _Rank | None, folder: Path, hint: str) -> str | None:
    """The reason why the ranks ended; None if rank 0 has printed it."""
    if culprit is None:
        return f"error: the ranks lost each other: one of them did not answer; {hint}"
    if culprit.number == 0 and not culprit.is_hung and (culprit.code or 0) > 0:
        return None
    if _said(culprit, folder):
        return _cause(culprit, folder)
    return f"error: {_cause(culprit, folder)}; {hint}"


def _cause(culprit: _Rank, folder: Path) -> str:
    """The end of a rank that ended the others."""
    rank, code = f"rank {culprit.number}", culprit.code or 0
    if culprit.is_hung:
        idle = f"it did nothing for {max(culprit.silence, culprit.idleness):.0f} s"
        return f"{rank} was stopped or hung, and was ended: {idle}{culprit.seen}"
    if code < 0:
        memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"{rank} was killed by {signal.Signals(-code).name}{memory}"
    return f"{rank}: {said}" if (said := _said(culprit, folder)) else f"{rank} ended with exit code {code}"


def _said(culprit: _Rank, folder: Path) -> str:
    """The error that a rank left, or nothing."""
    error = folder / f"error-{culprit.number}"
    is_left = error.is_file() and not culprit.is_hung and (culprit.code or 0) > 0
    return error.read_text(encoding="utf-8").strip() if is_left else ""

"""Signs of life of the ranks of a run: one that is stopped or lost is noticed and named by the others.

Silence alone counts, never how long a rank works: one that compiles, evaluates, saves or swaps goes on
beating, so the exchanges of a step need no limit that would be short for these. One of the same machine that
does not, but uses the processor or waits for its turn, is slow and not lost.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from etude.control.neighbour import Neighbour, own_place
from etude.control.ranks import LOST
from etude.durable import read_text
from etude.errors import EtudeError, LostRankError
from etude.text import shorten

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 2.0  # of silence, from which a process of this machine is looked at
_SUSPECT_SECONDS = 5.0  # of silence, once an exchange has failed
_KNOWN_SECONDS = 10.0  # for others to find out which rank an exchange failed for
_GRACE_SECONDS = 10.0  # for the main thread to learn that it ends
_LONG_GRACE_SECONDS = 120.0  # to record that and to leave
_MOST_CHARACTERS, _MOST_BYTES = 200, 1 << 16


class Others(Protocol):
    """The word of the other ranks of a run."""

    def why_lost(self, *, waits: bool = False) -> str | None:
        """The reason why this attempt cannot go on. waits: some seconds, as an exchange has failed."""
        ...

    def suspect(self) -> None:
        """Find out soon which rank is silent, as something says that one may be lost."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Take leave of the others, who are told of an error."""
        ...


class Launched:
    """The word of etude's own launcher, which watches its ranks and leaves in their folder what it lost."""

    def __init__(self, folder: Path) -> None:
        self._word = folder / LOST

    def why_lost(self, *, waits: bool = False) -> str | None:
        """The reason why this attempt cannot go on. waits: some seconds, as an exchange has failed."""
        end = time.monotonic() + (_KNOWN_SECONDS if waits else 0.0)
        while not self._word.exists():
            if time.monotonic() >= end:
                return None
            time.sleep(0.02)
        return read_text(self._word, most_bytes=_MOST_BYTES)

    def suspect(self) -> None:
        """Nothing: the launcher sees at once that a rank has ended."""

    def end(self, error: BaseException | None) -> None:
        """Nothing: the launcher sees how a rank ends."""


class Heartbeat:
    """Beats for this rank every second in the store of the ranks, and listens to the others.

    Rank 0 listens to all, and says who is silent for `seconds`; the others listen to rank 0. Once a rank is
    lost, exchanges that wait for it are broken off; a main thread that does not end by itself is ended.
    """

    def __init__(
        self, store: Any, rank: int, size: int, seconds: float, break_off: Callable[[], None]
    ) -> None:
        """All ranks have to meet between the making of theirs and `start`."""
        self._store = store.clone()  # of its own, so that it answers while another waits
        self._store.set_timeout(timedelta(seconds=seconds))
        self._rank, self._seconds, self._break_off = rank, seconds, break_off
        self._name = f"rank {rank} on {shorten(socket.gethostname(), 64)}"
        self._place = own_place() or "-"
        self._near: dict[int, Neighbour | None] = {}
        self._heard = dict.fromkeys(range(1, size) if rank == 0 else [0], ("", 0.0))  # last beat, silence
        self._lost: str | None = None
        self._is_told = self._suspects = self._is_seen = False
        self._unanswered = 0.0  # seconds that the store has not answered for
        self._left = threading.Event()
        store.set(_beat_of(rank), f"0 {self._place} {self._name}")
        if rank == 0:
            store.set("lost", "")
            store.set("suspicion", "")

    def start(self) -> None:
        """Begin to beat and to listen, when all ranks have met."""
        for work in (self._beat, self._watch):
            threading.Thread(target=work, name="heartbeat", daemon=True).start()

    def why_lost(self, *, waits: bool = False) -> str | None:
        """The reason why this attempt cannot go on. waits: some seconds, as an exchange has failed."""
        end = time.monotonic() + (_KNOWN_SECONDS if waits else 0.0)
        self._suspects |= waits
        while self._lost is None and time.monotonic() < end:
            time.sleep(0.05)
        self._is_seen |= self._lost is not None
        return self._lost

    def suspect(self) -> None:
        """Find out soon which rank is silent, as something says that one may be lost."""
        self._suspects = True

    def lose(self, reason: str) -> None:
        """End the attempt of all ranks; the first reason counts."""
        self._lost = self._lost or shorten(reason, _MOST_CHARACTERS)

    def end(self, error: BaseException | None) -> None:
        """Take leave of the others, who are told of an error."""
        if error is not None and not isinstance(error, GeneratorExit) and self._lost is None:
            said = str(error) if isinstance(error, EtudeError) else f"{type(error).__name__}: {error}"
            self.lose(f"{self._name} ended: {said.partition(chr(10))[0]}")
        end = time.monotonic() + 3 * _BEAT_SECONDS
        while self._lost is not None and not self._is_told and time.monotonic() < end:
            time.sleep(0.05)
        self._left.set()

    def _beat(self) -> None:
        count, last = 0, time.monotonic()
        try:
            while not self._left.is_set():
                count += 1
                self._store.set(_beat_of(self._rank), f"{count} {self._place} {self._name}")
                if self._suspects:
                    self._store.set("suspicion", "1")
                passed, last = _passed_since(last)
                self._listen(passed)
                if self._lost is not None and not self._is_told:
                    self._lost = self._store.compare_set("lost", "", self._lost).decode("utf-8", "replace")
                    self._is_told = True
                self._unanswered = 0.0
                self._left.wait(_BEAT_SECONDS)
        except RuntimeError as error:
            self.lose(f"{_where()} is gone ({str(error).partition(chr(10))[0][:80]})")
            self._is_told = True

    def _listen(self, passed: float) -> None:
        """Read the beats of others; `passed`: seconds since the last time."""
        names = ["lost", "suspicion", *map(_beat_of, self._heard)]
        lost, suspicion, *beats = (value.decode("utf-8", "replace") for value in self._store.multi_get(names))
        limit = min(_SUSPECT_SECONDS, self._seconds) if suspicion else self._seconds
        for rank, beat in zip(list(self._heard), beats):
            before, silence = self._heard[rank]
            silence = silence + passed if beat == before else 0.0
            _, place, name = (*beat.split(" ", 2), "", "")[:3]
            if rank not in self._near:
                self._near[rank] = Neighbour.read(place)
            near = self._near[rank]
            if silence > _LOOK_SECONDS and near and near.is_at_work():
                silence = 0.0
            self._heard[rank] = beat, silence
            if silence > limit:
                cause = near.seen if near else "it was killed or stopped, or its machine is lost"
                self.lose(f"{shorten(name, 100)} says nothing for {silence:.0f} s: {cause}")
        if lost:
            self._lost, self._is_told = shorten(lost, _MOST_CHARACTERS), True

    def _watch(self) -> None:
        last = time.monotonic()
        while self._lost is None:
            if self._left.wait(_BEAT_SECONDS):
                return
            passed, last = _passed_since(last)
            self._unanswered += passed
            near = None if _is_of_agent() else self._near.get(0)
            if self._unanswered > _LOOK_SECONDS and near and near.is_at_work():
                self._unanswered = 0.0
            if self._unanswered > self._seconds:
                cause = f"does not answer for {self._seconds:.0f} s: its machine is lost or stopped"
                self.lose(f"{_where()} {cause}")
        if self._left.wait(2 * _BEAT_SECONDS):
            return
        with contextlib.suppress(RuntimeError, AssertionError, ValueError):
            self._break_off()
        if self._left.wait(_GRACE_SECONDS) or (self._is_seen and self._left.wait(_LONG_GRACE_SECONDS)):
            return
        with contextlib.suppress(OSError):
            os.write(2, f"error: rank {self._rank} was ended: {self._lost}\n".encode())
        os._exit(LostRankError.exit_code)


def _beat_of(rank: int) -> str:
    return f"beat of rank {rank}"


def _passed_since(last: float) -> tuple[float, float]:
    """Seconds since a moment, and the new moment; while this process is stopped it hears nobody's silence."""
    now = time.monotonic()
    return min(now - last, 2 * _BEAT_SECONDS), now


def _where() -> str:
    """The store of the ranks, and who holds it."""
    address = f"{os.environ.get('MASTER_ADDR', '')[:100]}:{os.environ.get('MASTER_PORT', '')[:5]}"
    return f"the store of the ranks at {address}, held by {'torchrun' if _is_of_agent() else 'rank 0'} there,"


def _is_of_agent() -> bool:
    """True if torchrun holds the store of the ranks, else rank 0 does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

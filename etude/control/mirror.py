"""The mirror of a run: copies of its folder in a second place, made beside the loop, which never waits.

A copy is read back some time after it was written, and trusted then. The two newest such copies stay, and
what they are made of; the place may lose writes, hide new files for a while, and have no rename or lock.
"""

import contextlib
import hashlib
import itertools
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from etude.control.copy import (
    LARGE_BYTES,
    Manifest,
    Part,
    Piece,
    PieceKey,
    is_part,
    manifest_name,
    manifest_number,
    open_pieces,
)
from etude.control.copy import Place as Bytes
from etude.control.place import Place
from etude.errors import EtudeError, MissingError
from etude.records.events import Finding
from etude.records.store import Run
from etude.text import shorten

SETTLE_SECONDS = 10.0  # until what was written is read back
_READ_BACKS = 4
_TRIES = 3  # of opening a checkpoint, where the run removes one just then
# To remove files at each copy, which is to take 20 operations in all: four parts written and read, a listing.
_MOST_REMOVALS = 11
_MOST_AGAIN = 2  # copies at the end of a run, where the place loses what is written
_STILL_SECONDS = 60.0
_GUESSED_BYTES = 20e6  # a second, as a mounted Drive takes them
_GOES_ON = "the run goes on, and the next checkpoint is tried again"
_ADVICE = [
    ("No space left|quota", f"free some space there; {_GOES_ON}"),
    ("Read-only|Permission denied|Forbidden|403", f"make it writable; {_GOES_ON}"),
    ("No such file|does not exist", f"mount it again; {_GOES_ON}"),
]


class Mirror:
    """Copies a run in a thread of its own, when it is told that there is something new.

    place     the folder of the run in its mirror
    data      the folder of the prepared data, if they are copied too
    settle    seconds until a copy is read back
    """

    def __init__(
        self, run: Run, place: Place, *, data: Path | None = None, settle: float = SETTLE_SECONDS
    ) -> None:
        self._run, self._place, self._data, self._settle = run, place, data, settle
        self._token = secrets.token_hex(4)
        self._number: int | None = None  # of the last copy, once the place was looked at
        self._earlier: set[str] | None = None  # what other attempts left here
        self._parts: dict[PieceKey, tuple[str, Part]] = {}
        self._sizes: dict[str, int] = {}  # of the parts that this attempt wrote
        self._trusted: set[str] = set()  # those of them that were read back
        self._copies: list[tuple[str, Manifest]] = []  # of this attempt, that were read back; at most two
        self._pending: list[tuple[float, int, str, Manifest]] = []  # due, read backs so far
        self._said: set[str] = set()
        self._findings: list[tuple[str, str, str]] = []
        self._state, self._is_wanted, self._is_closing, self._is_off = "stopped", False, False, False
        self._seconds: float | None = None
        self._is_busy, self._again = False, 0
        self._moved = time.monotonic()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="mirror", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Have the run copied as it is now; copies that were not begun by then are left out."""
        with self._changed:
            self._is_wanted = True
            self._changed.notify()

    def findings(self, step: int) -> list[Finding]:
        """The failures since this was asked last, each cause once."""
        found, self._findings = self._findings, []
        return [Finding(step, *each) for each in found]

    def leaving_seconds(self, checkpoint_bytes: int) -> float:
        """Seconds for the copy that may be under way and the last one, as the last took or by its bytes."""
        return 2 * (checkpoint_bytes / _GUESSED_BYTES if self._seconds is None else self._seconds)

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to copy or to read back now."""
        with self._changed:
            return not (self._is_wanted or self._is_busy or self._pending)

    def close(self, state: str, most_seconds: float) -> None:
        """Copy the run as it is at its end, read that back and stop; waits no longer than given.

        Gives up where nothing moves for a minute, as with a disk that does not answer.
        """
        with self._changed:
            self._state, self._is_wanted, self._is_closing = state, True, True
            self._moved = began = time.monotonic()
            self._changed.notify()
        while self._thread.is_alive():
            self._thread.join(0.1)
            now = time.monotonic()
            if now - began > most_seconds or now - self._moved > _STILL_SECONDS:
                advice = "what was mirrored before is whole; mirror again by etude resume, or copy the folder"
                self._say("the end of the run is not mirrored", f"{self._place} takes too long", advice)
                return

    def _live(self) -> None:
        """The thread: copy when that is wanted, and read back what is due."""
        while True:
            with self._changed:
                if not self._is_wanted and not (self._is_closing and not self._pending):
                    self._changed.wait(self._until_due())
                is_wanted, self._is_wanted = self._is_wanted and not self._is_off, False
                self._is_busy = True
                is_over = self._is_closing and not is_wanted and not self._pending
            if is_over:
                return
            try:
                if is_wanted:
                    self._copy()
                elif self._pending and self._until_due() == 0:
                    self._read_back()
            except Exception as error:  # a mirror costs no step
                self._fail(error)
            self._is_busy = False

    def _until_due(self) -> float | None:
        """Seconds until the oldest copy is to be read back; None if there is none."""
        if not self._pending:
            return None
        due, tried, *_ = self._pending[0]
        if self._is_closing and not tried:
            return 0.0
        self._moved = time.monotonic()
        return max(due - time.monotonic(), 0.0)

    def _copy(self) -> None:
        """Write the parts that are new, and the manifest last; what was written goes if that fails."""
        began = time.monotonic()
        if self._number is None:
            self._place.make()
            found = map(manifest_number, self._place.names())
            self._number = max((each[0] for each in found if each), default=0)
        self._number += 1
        step, pieces = self._open()
        written: list[str] = []
        try:
            manifest, parts = self._write(self._number, step, pieces, written)
            name = manifest_name(self._number, self._token)
            written.append(name)
            self._place.write(name, self._moving([manifest.to_bytes()]))
        except BaseException:
            for each in reversed(written):
                with contextlib.suppress(EtudeError):
                    self._place.remove(each, is_large=True)
            raise
        finally:
            for piece in pieces:
                piece.file.close()
        self._parts = parts
        self._pending.append((time.monotonic() + self._settle, 0, name, manifest))
        self._seconds = time.monotonic() - began

    def _open(self) -> tuple[int, list[Piece]]:
        for tries in itertools.count(1):
            try:
                return open_pieces(self._run, self._data)
            except MissingError:
                if tries == _TRIES:
                    raise
        raise AssertionError

    def _write(
        self, number: int, step: int, pieces: list[Piece], written: list[str]
    ) -> tuple[Manifest, dict[PieceKey, tuple[str, Part]]]:
        """Write what is not there yet; returns the manifest and the parts by the pieces that they hold."""
        prefix, alone = f"{number:06d}-{self._token}-", {}
        files: dict[str, list[Bytes]] = {}
        for piece in (each for each in pieces if each.is_alone):
            found = self._parts.get(piece.key)
            if found is None:
                path = piece.path.removeprefix("checkpoints/").replace("/", "-")
                name = f"{prefix}{path}" + (f"-{piece.start}" if piece.start else "")
                written.append(name)
                found = name, self._write_part(name, piece.chunks())
            alone[piece.key] = found
            files.setdefault(piece.path, []).append((found[0], 0, piece.size))
        small, start, name = [each for each in pieces if not each.is_alone], 0, f"{prefix}records"
        written.append(name)
        records = self._write_part(name, itertools.chain.from_iterable(each.chunks() for each in small))
        for piece in small:
            files.setdefault(piece.path, []).append((name, start, piece.size))
            start += piece.size
        data = self._data.name if self._data else None
        parts = {**dict(alone.values()), name: records}
        return Manifest(self._run.info["id"], step, self._state, parts, files, data), alone

    def _write_part(self, name: str, chunks: Iterator[bytes]) -> Part:
        digest, size = hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        self._place.write(name, self._moving(counted()))
        self._sizes[name] = size
        return Part(size, digest.hexdigest())

    def _moving(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._moved = time.monotonic()
            yield chunk

    def _read_back(self) -> None:
        """Read a copy back; one that is as it was written is trusted, and older ones may go."""
        _, tried, name, manifest = self._pending.pop(0)
        lost = self._lost(name, manifest)
        if lost and tried + 1 < _READ_BACKS:  # it may yet become visible
            self._pending.insert(0, (time.monotonic() + self._settle, tried + 1, name, manifest))
            return
        if lost:
            self._parts = {key: each for key, each in self._parts.items() if each[0] not in lost}
            evidence = f"{self._place} took {min(lost)} without an error, and does not have it as written"
            self._say("the mirror lost a write", evidence, "that copy is not trusted, and is made again")
            with self._changed:
                self._again += self._is_closing
                self._is_wanted = self._again <= _MOST_AGAIN
            return
        self._copies = [*self._copies[-1:], (name, manifest)]
        self._clear()

    def _lost(self, name: str, manifest: Manifest) -> set[str]:
        """The files of a copy that are not as they were written."""
        content = manifest.to_bytes()
        wanted = {name: Part(len(content), hashlib.sha256(content).hexdigest())}
        wanted |= {part: each for part, each in manifest.parts.items() if part not in self._trusted}
        lost = set()
        for each, part in wanted.items():
            digest = hashlib.sha256()
            with contextlib.suppress(MissingError):
                for chunk in self._moving(self._place.read(each)):
                    digest.update(chunk)
            if digest.hexdigest() != part.sha256:
                lost.add(each)
            elif each in manifest.parts:
                self._trusted.add(each)
        return lost

    def _clear(self) -> None:
        """Remove what neither of the two newest copies is made of, oldest first, manifests before parts.

        Until this attempt has made two, what earlier ones left stays.
        """
        if len(self._copies) < 2:
            return
        names = [name for name in self._place.names() if is_part(name)]
        foreign = [name for name in names if self._token not in name]
        if self._earlier is None:
            self._earlier = set(foreign)
        elif others := [name for name in foreign if name not in self._earlier]:
            self._is_off = True
            evidence = f"{self._place} has {others[0]}, which this process did not write"
            advice = "another process trains this run too; stop one of them, and start this one again"
            self._say("two processes mirror one run", evidence, advice)
            return
        copies = [*self._copies, *((name, manifest) for _, _, name, manifest in self._pending)]
        kept = {name for name, _ in copies}.union(*(manifest.parts for _, manifest in copies))
        left = sorted((manifest_number(name) is None, name) for name in names if name not in kept)
        operations = 0
        for is_no_manifest, name in left:
            is_large = is_no_manifest and self._sizes.get(name, LARGE_BYTES) >= LARGE_BYTES
            operations += 1 + is_large
            if operations > _MOST_REMOVALS:
                return
            self._place.remove(name, is_large=is_large)

    def _fail(self, error: Exception) -> None:
        said = shorten(str(error) if isinstance(error, EtudeError) else f"{type(error).__name__}: {error}")
        advice = next((each for pattern, each in _ADVICE if re.search(pattern, said)), _GOES_ON)
        self._say("the run is not mirrored", said.partition("; ")[0], advice)

    def _say(self, what: str, evidence: str, advice: str) -> None:
        """Note a finding, once for each advice: what follows from one cause is told in many words."""
        if (cause := f"{what} {advice}") not in self._said:
            self._said.add(cause)
            self._findings.append((what, evidence, advice))

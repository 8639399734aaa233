"""The journal: every record of a run, one checksummed line of JSON each, only ever appended to."""

import contextlib
import gc
import itertools
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.records.events import (
    TIME,
    Attempt,
    CheckpointSaved,
    Control,
    Evaluation,
    Event,
    Finding,
    Generation,
    Resource,
    Scores,
    Step,
    from_json,
    from_line,
    to_json,
)  # fmt: skip
from etude.records.shape import Object, fit

FORMAT = 1
_LONGEST_LINE = durable.LARGEST_JSON_BYTES
_MOST_DAMAGED = 100_000


@dataclass(frozen=True)
class Entry:
    """One record: the event, its Unix time and the attempt it belongs to (from 1; 0 before the first)."""

    event: Event
    time: float
    attempt: int


class Journal:
    """Appends records. Opening cuts off a line that a kill left half-written."""

    def __init__(self, path: Path) -> None:
        self._file = durable.Appender(path)
        self._file.cut_torn_line()
        if self._file.size == 0:
            self._file.append(_line({"type": "journal", "format": FORMAT}))

    def append(self, event: Event) -> None:
        self._file.append(_line(to_json(event, time.time())))

    def append_all(self, events: list[Event]) -> None:
        """Several records in one write."""
        now = time.time()
        self._file.append(b"".join(_line(to_json(event, now)) for event in events))

    def sync(self) -> None:
        """Make all that was appended durable."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Ledger:
    """What a journal says after dropping what restarts made void.

    entries  those that count, in order
    rework   steps that were run again because a restart began before them
    damaged  numbers of lines whose checksum does not hold, or whose record is none that a run writes
    size     bytes of the lines that were read
    """

    entries: list[Entry]
    rework: list[Entry]
    damaged: list[int]
    size: int = 0

    @property
    def all(self) -> list[Entry]:
        """Every record, void ones too."""
        return [*self.entries, *self.rework]


class Reader:
    """Follows a journal: each `read` takes in the lines that were appended since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ledger = Ledger([], [], [])
        self._line, self._attempt = 0, 0

    def read(self) -> Ledger:
        """All that counts so far, also of a run that is going on or was killed.

        A line counts as damaged if its checksum does not hold, or its record is none that a run writes.

        Raises: MissingError if there is no journal; InputError if it cannot be one, or its format is newer
        than this version knows.
        """
        with _without_collection():
            self._ledger = self._read()
        return self._ledger

    def _read(self) -> Ledger:
        entries, rework = list(self._ledger.entries), list(self._ledger.rework)
        damaged, size = list(self._ledger.damaged), self._ledger.size
        for line, length in _lines(self._path, size, self._line):
            self._line, size = self._line + 1, size + length
            try:
                entry = self._entry(line)
            except (ValueError, KeyError, RecursionError):
                damaged.append(self._line)
                if len(damaged) > _MOST_DAMAGED:
                    raise InputError(
                        f"{self._path} is no journal: over {_MOST_DAMAGED:,} of its lines are damaged; "
                        "restore it from a copy"
                    ) from None
                continue
            if entry is None:
                continue
            if isinstance(entry.event, Attempt):
                from_step = entry.event.from_step
                rework += [each for each in entries if _is_void(each.event, from_step)]
                entries = [each for each in entries if not _is_void(each.event, from_step)]
            entries.append(entry)
        return Ledger(entries, rework, damaged, size)

    def _entry(self, line: bytes) -> Entry | None:
        """The record of a line; None for the head of the journal and for types that this version
        does not know.

        Raises: ValueError or KeyError if it is damaged.
        """
        _check(line)
        if flat := from_line(line):
            return Entry(*flat, self._attempt)
        record = dict(fit(json.loads(line), Object({"type": str})))
        if record["type"] == "journal":
            if fit(record["format"], int) > FORMAT:
                raise InputError(
                    f"{self._path} has format {record['format']}; this etude reads up to {FORMAT}; update "
                    "etude"
                )
            return None
        moment, event = fit(record["time"], TIME), from_json(record)
        if isinstance(event, Attempt):
            self._attempt = event.number
        return None if event is None else Entry(event, moment, self._attempt)


def read_journal(path: Path) -> Ledger:
    """Read a journal once. Raises: as `Reader.read`."""
    return Reader(path).read()


def write_journal(path: Path, entries: Iterable[Entry]) -> None:
    """Write a journal of records with their times. Raises: StorageError."""
    head = _line({"type": "journal", "format": FORMAT})
    lines = (_line(to_json(entry.event, entry.time)) for entry in entries)
    durable.write_file(path, itertools.chain([head], lines))


def append_beside(path: Path, event: Event) -> None:
    """Append a record to a journal that another process is writing."""
    file = durable.Appender(path)
    file.append(_line(to_json(event, time.time())))
    file.sync()
    file.close()


def _is_void(event: Event, from_step: int) -> bool:
    """A restart from nothing also repeats the evaluation before the first step."""
    if isinstance(event, Finding | Control):  # those of the start may be of an attempt, not of a step
        return event.step > from_step
    if not isinstance(event, Step | Evaluation | Scores | Generation | Resource | CheckpointSaved):
        return False
    return event.step > from_step or from_step == 0


def _lines(path: Path, start: int, number: int) -> Iterator[tuple[bytes, int]]:
    """Lines from an offset on, without their ends, and their lengths in bytes.

    A torn last line is left out, one that is too long is cut. `number`: of the lines before.

    Raises: MissingError; InputError.
    """
    with durable.open_plain(path, follow=False) as file:
        file.seek(start)
        while line := file.readline(_LONGEST_LINE):
            number, cut = number + 1, line
            length = len(line)
            while cut and not cut.endswith(b"\n"):
                cut = file.readline(_LONGEST_LINE)
                length += len(cut)
                if length > _LONGEST_LINE * 8:
                    raise InputError(
                        f"{path} is no journal: line {number} has no end; restore it from a copy"
                    )
            if cut:
                yield line.removesuffix(b"\n"), length


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Do without the garbage collector, which looks through all records again and again as they grow more."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1].encode("utf-8", "backslashreplace")
    return body + b', "crc": "%08x"}\n' % zlib.crc32(body)


def _check(line: bytes) -> None:
    """Raises: ValueError if the checksum of a line does not hold."""
    body, sign, rest = line.rpartition(b', "crc": "')
    if not sign or rest[8:] != b'"}' or rest[:8] != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum")

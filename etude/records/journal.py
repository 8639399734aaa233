"""The journal: every record of a run, one checksummed line of JSON each, only ever appended to."""

import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import InputError
from etude.records.events import (
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
    to_json,
)  # fmt: skip
from etude.records.shape import Object, at_least, fit

FORMAT = 1
_LONGEST_LINE = durable.LARGEST_JSON_BYTES
_MOST_DAMAGED = 100_000
_TIME = Annotated[float, at_least(0, 253402300799)]  # up to the year 9999, the last that a date can have


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
    """

    entries: list[Entry]
    rework: list[Entry]
    damaged: list[int]

    @property
    def all(self) -> list[Entry]:
        """Every record, void ones too."""
        return [*self.entries, *self.rework]


def read_journal(path: Path) -> Ledger:
    """Read a journal, also one of a run that is going on or was killed.

    A line counts as damaged if its checksum does not hold, or its record is none that a run writes.

    Raises: MissingError if there is none; InputError if it cannot be a journal, or its format is newer than
    this version knows.
    """
    entries: list[Entry] = []
    rework: list[Entry] = []
    damaged: list[int] = []
    attempt = 0
    for number, line in _lines(path):
        try:
            record = _parse(line)
            if record["type"] == "journal":
                if fit(record["format"], int) > FORMAT:
                    raise InputError(
                        f"{path} has format {record['format']}; this etude reads up to {FORMAT}; update etude"
                    )
                continue
            moment, event = fit(record["time"], _TIME), from_json(record)
        except (ValueError, KeyError, RecursionError):
            damaged.append(number)
            if len(damaged) > _MOST_DAMAGED:
                raise InputError(
                    f"{path} is no journal: over {_MOST_DAMAGED:,} of its lines are damaged; restore it from "
                    "a copy"
                ) from None
            continue
        if event is None:
            continue
        if isinstance(event, Attempt):
            attempt = event.number
            void = [entry for entry in entries if _is_void(entry.event, event.from_step)]
            rework += void
            entries = [entry for entry in entries if not _is_void(entry.event, event.from_step)]
        entries.append(Entry(event, moment, attempt))
    return Ledger(entries, rework, damaged)


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


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line without its end); a torn last line is left out, one that is too long is cut.

    Raises: MissingError; InputError.
    """
    with durable.open_plain(path, follow=False) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number, cut = number + 1, line
            skipped = len(line)
            while cut and not cut.endswith(b"\n"):
                cut = file.readline(_LONGEST_LINE)
                skipped += len(cut)
                if skipped > _LONGEST_LINE * 8:
                    raise InputError(
                        f"{path} is no journal: line {number} has no end; restore it from a copy"
                    )
            if cut:
                yield number, line.removesuffix(b"\n")


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1].encode("utf-8", "backslashreplace")
    return body + b', "crc": "%08x"}\n' % zlib.crc32(body)


def _parse(line: bytes) -> dict[str, Any]:
    """The record of a line. Raises: ValueError if its checksum does not hold, or it is no JSON object."""
    body, sign, rest = line.rpartition(b', "crc": "')
    if not sign or rest[8:] != b'"}' or rest[:8] != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum")
    return dict(fit(json.loads(line), Object({"type": str})))

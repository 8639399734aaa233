"""The journal: every record of a run, one checksummed line of JSON each, only ever appended to."""

import contextlib
import itertools
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import DamageError, InputError
from etude.memory import without_collection
from etude.records import flat
from etude.records.clock import EvenClock, EvenTimes
from etude.records.events import TIME, Attempt, Event, from_json, to_json
from etude.records.head import Growing, Head
from etude.records.ledger import Entry, Ledger, is_void
from etude.records.ranges import is_possible
from etude.records.shape import Object, fit

FORMAT = 1
_BLOCK_BYTES = 1 << 16  # small enough to stay in the caches of a core
_LONGEST_LINE = durable.LARGEST_JSON_BYTES
_MOST_DAMAGED = 100_000
_END = b', "crc": "%08x"}'
_END_BYTES = len(_END % 0)


class Journal:
    """Appends records. Opening cuts off a line that a kill left half-written.

    Raises: DamageError by each append once the journal is shorter than this process left it, or no longer
    where it was; others may append to it.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._clock = durable.Appender(path), EvenClock()
        self._file.cut_torn_line()
        self._written, self._growing = self._file.size, Growing(self._file.read)
        if self._written == 0:
            self._append(_line({"type": "journal", "format": FORMAT}))

    def append(self, *events: Event) -> None:
        """Append records in one write."""
        now = self._clock.now()
        self._append(b"".join(_line(to_json(event, now)) for event in events))

    def head(self) -> Head:
        """The head of all lines so far."""
        return self._growing.head()

    def sync(self) -> None:
        """Make all that was appended durable."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()

    def _append(self, lines: bytes) -> None:
        size, path = self._file.size, self._file.path
        what = "removed or replaced" if not self._file.is_in_place else None
        if what is None and size < self._written:
            what = f"cut off to {size:,} of {self._written:,} bytes"
        if what:
            advice = "restore it from a copy, and run the same command again"
            raise DamageError(f"{path} was {what} during the run; {advice}")
        self._file.append(lines)
        self._written = size + len(lines)


class Lines:
    """The whole lines of a journal from a place on, in blocks; `size` is the place behind the last block.

    until: the place behind the last line that is read, where that is not the last of all
    """

    def __init__(self, path: Path, size: int = 0, until: int | None = None) -> None:
        self._path, self.size, self._until = path, size, until

    def read(self) -> Iterator[list[bytes]]:
        """Lines without their ends; a torn last line is left out, one that is too long is cut.

        Raises: as `Reader.read`.
        """
        with durable.open_plain(self._path, follow=False) as file:
            file.seek(self.size)
            while block := file.read(self._block_bytes()):
                if not block.endswith(b"\n"):
                    block += file.readline(_LONGEST_LINE)
                *lines, rest = block.split(b"\n")
                self.size += len(block) - len(rest)
                yield lines
                length, end = len(rest), rest
                while end and not end.endswith(b"\n"):
                    end = file.readline(_LONGEST_LINE)
                    length += len(end)
                    if length > _LONGEST_LINE * 8:
                        raise InputError(
                            f"{self._path} is no journal: the line at byte {self.size:,} has no end; restore "
                            "it from a copy"
                        )
                if end:
                    self.size += length
                    yield [rest]

    def _block_bytes(self) -> int:
        return _BLOCK_BYTES if self._until is None else max(min(_BLOCK_BYTES, self._until - self.size), 0)


class Reader:
    """Follows a journal: each `read` takes in the lines that were appended since the last one.

    numbers: with steps and resources, which are most lines; without them they are passed over unchecked
    until: as of `Lines`
    """

    def __init__(self, path: Path, *, numbers: bool = True, until: int | None = None) -> None:
        self._path, self._lines, self._has_numbers = path, Lines(path, until=until), numbers
        self._entries: list[Entry] = []
        self._rework: list[Entry] = []
        self._damaged: list[int] = []
        self._line = self._attempt = 0
        self._times = EvenTimes()
        self._own_code: frozenset[str] = frozenset()
        # Places in _entries of attempts, and their first step: all before the place is of no later step.
        self._starts: list[tuple[int, int]] = []

    def read(self) -> Ledger:
        """All that counts so far, also of a run that is going on or was killed.

        A line counts as damaged if its checksum does not hold, or its record is none that a run writes.

        Raises: MissingError if there is no journal; InputError if it cannot be one, or its format is newer
        than this version knows.
        """
        with without_collection():
            for lines in self._lines.read():
                start = 0
                for other in flat.others(lines):
                    self._take_flat(lines[start:other])
                    self._take(lines[other])
                    start = other + 1
                self._take_flat(lines[start:])
        return Ledger(
            list(self._entries), list(self._rework), list(self._damaged), self._lines.size,
            tuple(self._times.jumps),
        )  # fmt: skip

    def _take_flat(self, lines: list[bytes]) -> None:
        """Take in lines of numbers at once; where one of them is odd, by halves."""
        if not self._has_numbers:
            self._line += len(lines)
            return
        if len(lines) < 2:
            for line in lines:
                self._take(line)
            return
        try:
            check_lines(lines)
            self._entries += self._times.take(flat.read(lines, self._attempt))
            self._line += len(lines)
        except ValueError:
            self._take_flat(lines[: len(lines) // 2])
            self._take_flat(lines[len(lines) // 2 :])

    def _take(self, line: bytes) -> None:
        self._line += 1
        try:
            entry = self._entry(line)
        except (ValueError, KeyError, RecursionError):
            self._damaged.append(self._line)
            if len(self._damaged) > _MOST_DAMAGED:
                raise InputError(
                    f"{self._path} is no journal: over {_MOST_DAMAGED:,} of its lines are damaged; "
                    "restore it from a copy"
                ) from None
            return
        if entry is None:
            return
        if isinstance(entry.event, Attempt):
            self._begin(entry.event.from_step)
        # Without the steps between them, records may well be days apart.
        self._entries += self._times.take([entry]) if self._has_numbers else [entry]

    def _begin(self, from_step: int) -> None:
        """Make void what is beyond the step that an attempt begins from."""
        while self._starts and self._starts[-1][1] > from_step:
            self._starts.pop()
        place = self._starts[-1][0] if self._starts else 0
        later = self._entries[place:]
        self._rework += [each for each in later if is_void(each.event, from_step)]
        self._entries[place:] = [each for each in later if not is_void(each.event, from_step)]
        self._starts.append((len(self._entries), from_step))

    def _entry(self, line: bytes) -> Entry | None:
        """The record of a line; None for the head of the journal and for unknown types.

        Raises: ValueError or KeyError if it is damaged.
        """
        found = parse_line(line, self._path)
        if found is not None and isinstance(found[0], Attempt):
            self._attempt = found[0].number
            self._own_code = frozenset(found[0].environment.get("own_code") or ())
        if found is not None and not is_possible(found[0], self._own_code):
            raise ValueError("a figure out of its range")
        return None if found is None else Entry(*found, self._attempt)


def read_journal(path: Path, until: int | None = None) -> Ledger:
    """Read a journal once, until a place (bytes) behind one of its lines. Raises: as `Reader.read`."""
    return Reader(path, until=until).read()


def parse_line(line: bytes, path: Path) -> tuple[Event, float] | None:
    """The event of a line and its Unix time; None for the head of the journal and for unknown types.

    Raises: ValueError or KeyError if it is damaged; InputError if its format is a newer one.
    """
    check_lines([line])
    record = dict(fit(json.loads(line), Object({"type": str})))
    if record["type"] == "journal":
        if fit(record["format"], int) > FORMAT:
            raise InputError(
                f"{path} has format {record['format']}; this etude reads up to {FORMAT}; update etude"
            )
        return None
    moment, event = fit(record["time"], TIME), from_json(record)
    return None if event is None else (event, moment)


def read_after(path: Path, place: int) -> tuple[list[Event], int]:
    """The records of the whole lines behind a place (bytes) of a journal, and the place behind them.

    Raises: InputError if it cannot be read.
    """
    with durable.open_plain(path, follow=False) as file:
        file.seek(place)
        *lines, _ = file.read().split(b"\n")
    found: list[Event] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, RecursionError):
            check_lines([line])
            if (event := from_json(json.loads(line))) is not None:
                found.append(event)
    return found, place + sum(len(line) + 1 for line in lines)


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


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1].encode("utf-8", "backslashreplace")
    return body + _END % zlib.crc32(body) + b"\n"


def check_lines(lines: list[bytes]) -> None:
    """Check the checksums of lines. Raises: ValueError if one does not hold."""
    ends = [line[-_END_BYTES:] == _END % zlib.crc32(line[:-_END_BYTES]) for line in lines]
    if not all(ends):
        raise ValueError("checksum")

"""Rows of numbers in a file, and statistics of every 16, 64, 256 ... of them, to draw any range quickly.

The files are a cache of one journal. What counts is the number of rows that its owner keeps: bytes behind
them are overwritten, and a file that is shorter is damage.
"""

from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import numpy as np

from etude import durable
from etude.errors import DamageError, InputError, MissingError

FACTOR = 4
LEAST, MOST, SUM, COUNT, ODD = range(5)  # of a bucket; of finite values but the last, the number of others
# A value that was not measured: a NaN that no calculation gives, so that one measured as NaN is told.
MISSING = np.array([0x7FF8_0000_0000_0E7D], np.uint64).view(np.float64)[0]
_FIRST_LEVEL = 2  # buckets of 4 are made from their rows
_STATISTICS = 5
_FLUSH_ROWS = 1 << 14
Array = np.ndarray


@dataclass
class Table:
    """A table of float64 (rows, columns) below a folder; the first columns ascend.

    count: rows that count, of which the last may wait in memory until `flush`
    """

    folder: Path
    name: str
    columns: list[str]
    count: int = 0
    _waiting: list[Array] = field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.columns)

    @property
    def written(self) -> int:
        """Rows that are in the file."""
        return self.count - sum(map(len, self._waiting))

    def append(self, rows: Array) -> None:
        """Append rows (n, columns)."""
        self._waiting.append(rows)
        self.count += len(rows)
        if self.count - self.written >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits, and the statistics of the buckets that became whole. Raises: StorageError."""
        if not self._waiting:
            return
        before, rows = self.written, np.concatenate(self._waiting)
        durable.write_at(self._path(0), rows.tobytes(), before * self.width * 8)
        self._waiting = []
        level = _FIRST_LEVEL
        while self.count >> (2 * level):
            start, stop = before >> (2 * level), self.count >> (2 * level)
            if stop > start:
                if level == _FIRST_LEVEL:
                    made = self.buckets_of(
                        self.rows(start << (2 * level), stop << (2 * level)), 1 << (2 * level)
                    )
                else:
                    made = _join(self._level(level - 1, start * FACTOR, stop * FACTOR))
                durable.write_at(self._path(level), made.tobytes(), start * self.width * _STATISTICS * 8)
            level += 1

    def cut(self, count: int) -> None:
        """Keep the first rows only."""
        self.flush()
        self.count = min(self.count, count)

    def rows(self, start: int, stop: int) -> Array:
        """Rows of the file from one to before another. Raises: DamageError."""
        return self._read(self._path(0), self.width, start, stop)

    def find(self, column: int, value: float, *, right: bool = False) -> int:
        """The first row whose value of an ascending column is not below another, or with `right` above it."""
        low, high = 0, self.written
        if not high:
            return 0
        with self._open(self._path(0)) as file:
            while low < high:
                middle = (low + high) // 2
                file.seek((middle * self.width + column) * 8)
                (found,) = np.fromfile(file, np.float64, 1).tolist() or [np.inf]
                if found < value or (right and found == value):
                    low = middle + 1
                else:
                    high = middle
        return low

    def buckets(self, start: int, stop: int, level: int) -> Array:
        """Statistics (n, columns, 5) of the buckets of 4^level rows between two, the last of what is left."""
        size = 1 << (2 * level)
        first, whole = start // size, stop // size
        if level < _FIRST_LEVEL:
            return self.buckets_of(self.rows(first * size, stop), size)
        found = self._level(level, first, whole)
        rest = self._rest(whole * size, stop, level)
        return found if rest is None else np.concatenate([found, rest])

    def buckets_of(self, rows: Array, size: int) -> Array:
        """Statistics of every `size` rows, and of those that are left."""
        parts, whole = [], len(rows) // size * size
        if whole:
            parts.append(_describe(rows[:whole].reshape(-1, size, self.width)))
        if whole < len(rows):
            parts.append(_describe(rows[None, whole:]))
        return np.concatenate(parts) if parts else np.zeros((0, self.width, _STATISTICS))

    def files(self) -> list[Path]:
        """The files that hold rows that count."""
        levels = [level for level in range(_FIRST_LEVEL, 32) if self.written >> (2 * level)]
        return [self._path(level) for level in ([0] if self.written else []) + levels]

    def check(self) -> None:
        """Check that the files have the rows that count. Raises: DamageError."""
        for path in self.files():
            level = int(path.suffix[1:])
            each = self.width * 8 * (_STATISTICS if level else 1)
            try:
                is_whole = path.lstat().st_size >= (self.written >> (2 * level)) * each
            except OSError:
                is_whole = False
            if not is_whole:
                raise DamageError(f"{path} is shorter than what was written")

    def _rest(self, start: int, stop: int, level: int) -> Array | None:
        """One bucket of the rows behind the last whole one, by the levels below."""
        parts = []
        for lower in range(level - 1, _FIRST_LEVEL - 1, -1):
            size = 1 << (2 * lower)
            whole = start + (stop - start) // size * size
            if whole > start:
                parts.append(self._level(lower, start // size, whole // size))
                start = whole
        if stop > start:
            parts.append(_describe(self.rows(start, stop)[None]))
        return _join(np.concatenate(parts), whole=True) if parts else None

    def _level(self, level: int, start: int, stop: int) -> Array:
        found = self._read(self._path(level), self.width * _STATISTICS, start, stop)
        return found.reshape(-1, self.width, _STATISTICS)

    def _read(self, path: Path, width: int, start: int, stop: int) -> Array:
        if stop <= start:
            return np.zeros((0, width))
        with self._open(path) as file:
            file.seek(start * width * 8)
            found = np.fromfile(file, np.float64, (stop - start) * width)
        if len(found) < (stop - start) * width:
            raise DamageError(f"{path} is shorter than what was written")
        return found.reshape(-1, width)

    def _open(self, path: Path) -> BufferedReader:
        try:
            return durable.open_plain(path, follow=False)
        except (MissingError, InputError) as error:
            raise DamageError(str(error)) from None

    def _path(self, level: int) -> Path:
        return self.folder / f"{self.name}.{level}"


def is_missing(values: Array) -> Array:
    """True for each value that was not measured."""
    found: Array = np.ascontiguousarray(values).view(np.uint64) == MISSING.view(np.uint64)
    return found


def _describe(rows: Array) -> Array:
    """Statistics (n, columns, 5) of buckets of rows (n, size, columns)."""
    is_finite = np.isfinite(rows)
    found = np.empty((rows.shape[0], rows.shape[2], _STATISTICS))
    found[..., LEAST] = np.where(is_finite, rows, np.inf).min(1)
    found[..., MOST] = np.where(is_finite, rows, -np.inf).max(1)
    found[..., SUM] = np.where(is_finite, rows, 0.0).sum(1)
    found[..., COUNT] = is_finite.sum(1)
    found[..., ODD] = (~is_finite & ~is_missing(rows)).sum(1)
    return found


def _join(buckets: Array, *, whole: bool = False) -> Array:
    """Statistics of every four buckets, or of all of them."""
    grouped = buckets[None] if whole else buckets.reshape(-1, FACTOR, *buckets.shape[1:])
    joined: Array = grouped.sum(1)
    joined[..., LEAST] = grouped[..., LEAST].min(1)
    joined[..., MOST] = grouped[..., MOST].max(1)
    return joined

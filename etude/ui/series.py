"""The points of a chart: any range of the series of a run, in as many buckets as it has room for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from etude.errors import InputError
from etude.records.store import Run
from etude.text import shorten
from etude.ui.columns import AXES, Columns, open_columns
from etude.ui.tables import COUNT, FACTOR, LEAST, MOST, ODD, SUM, Array, Table, is_missing

PATIENCE_SECONDS = 1.0
_MOST_ODD = 100
_CSV_ROWS = 2000


def read_series(
    run: Run,
    names: Sequence[str],
    axis: str,
    *,
    low: float | None,
    high: float | None,
    points: int,
    at: Sequence[int] = (),
) -> dict[str, Any]:
    """Series between two places of an axis, each in at most twice as many buckets as `points`.

    Of a long journal that was never read it is what a second of reading gives, and `read` says which part.
    A bucket of one record is its value; one of 4, 16 ... has mean, least and most of the finite values. Of a
    series that the run has not, there is nothing. at: steps, whose places on the axis are told too.

    Raises: InputError for another axis; as `Columns.update`.
    """
    place = _place_of(axis)
    columns = open_columns(run)
    columns.update(PATIENCE_SECONDS)
    with columns.turn:
        series = {
            name: _series(columns, name, place, (low, high), points) for name in names or columns.names()
        }
        told = {
            "size": columns.size,
            "axis": axis,
            "damaged_lines": columns.damaged,
            "left_out": columns.left_out,
        }
        places = {"at": _places(columns.steps, at, place)} if at else {}
        return {**told, **places, "read": columns.part, "series": series}


def csv_lines(run: Run, names: Sequence[str], axis: str) -> Iterator[bytes]:
    """Every point as CSV, a block at a time: the axis, then each series; empty where there is none."""
    place = _place_of(axis)
    columns = open_columns(run)
    columns.update()
    wanted = [(name, columns.find(name)) for name in names or columns.names()]
    yield ",".join(map(_quoted, [axis, *(name for name, _ in wanted)])).encode() + b"\n"
    for table in columns.tables:
        if not any(found and found[0] is table for _, found in wanted):
            continue
        picks = [found[1] if found and found[0] is table else None for _, found in wanted]
        for start in range(0, table.count, _CSV_ROWS):
            with columns.turn:
                rows = table.rows(start, min(start + _CSV_ROWS, table.count))
            yield _csv(rows, place, picks)


def _series(
    columns: Columns, name: str, place: int, between: tuple[float | None, float | None], points: int
) -> dict[str, Any]:
    found = columns.find(name)
    if found is None or not found[0].count:
        return {"count": 0, "bucket": 1, "x": [], "mean": []}
    table, column = found
    low, high = between
    # A record on either side, so that lines lead to the edges.
    start = 0 if low is None else max(table.find(place, low) - 1, 0)
    stop = table.count if high is None else min(table.find(place, high, right=True) + 1, table.count)
    level = 0
    while (stop - start) > 2 * points * FACTOR**level:
        level += 1
    if level:
        return _buckets(table, column, place, (start, stop), level)
    rows = table.rows(start, stop)
    rows = rows[~is_missing(rows[:, column])]
    return {
        "count": table.count, "bucket": 1, "x": _plain(rows[:, place], place),
        "mean": _finite(rows[:, column]), **_odd(rows, column, place),
    }  # fmt: skip


def _places(table: Table, steps: Sequence[int], place: int) -> dict[int, float]:
    """The place on an axis of each step that was reached; before the first one it is 0."""
    if not table.count:
        return {}
    table.flush()
    last, found = table.rows(table.count - 1, table.count)[0, 0], dict[int, float]()
    for step in dict.fromkeys(steps):
        if step <= last:
            row = table.find(0, step, right=True) - 1
            found[step] = 0.0 if row < 0 else float(table.rows(row, row + 1)[0, place])
    return found


def _buckets(table: Table, column: int, place: int, between: tuple[int, int], level: int) -> dict[str, Any]:
    start, stop = between
    size = FACTOR**level
    found = table.buckets(start, stop, level)
    counts, on_axis = found[:, column, COUNT], found[:, place]
    has = counts > 0
    odd = np.flatnonzero(found[:, column, ODD])
    told: list[list[Any]] = []
    for index in odd[:_MOST_ODD].tolist():
        first = (start // size + index) * size
        told += _odd(table.rows(first, min(first + size, stop)), column, place).get("odd", [])
    with np.errstate(invalid="ignore", divide="ignore"):
        x, mean = on_axis[:, SUM] / on_axis[:, COUNT], found[:, column, SUM] / counts
    shown = has | (found[:, column, ODD] > 0)  # a bucket of nothing but NaN is a break of the line
    series = {
        "count": table.count, "bucket": size, "x": _plain(x[shown], place, is_mean=True),
        "mean": _finite(mean[shown]), "low": _finite(found[shown, column, LEAST]),
        "high": _finite(found[shown, column, MOST]),
    }  # fmt: skip
    count = int(found[:, column, ODD].sum())
    return series | ({"odd": told[:_MOST_ODD], "odd_count": count} if told else {})


def _odd(rows: Array, column: int, place: int) -> dict[str, Any]:
    """The values that are not finite, with their places on the axis."""
    values = rows[:, column]
    found = np.flatnonzero(~np.isfinite(values) & ~is_missing(values))
    where = found[:_MOST_ODD]
    told = [[x, str(value)] for x, value in zip(rows[where, place].tolist(), values[where].tolist())]
    return {"odd": told, "odd_count": len(found)} if told else {}


def _finite(values: Array) -> list[float | None]:
    is_finite = np.isfinite(values)
    if is_finite.all():
        return values.tolist()  # type: ignore[no-any-return]
    return [value if known else None for value, known in zip(values.tolist(), is_finite.tolist())]


def _plain(values: Array, place: int, *, is_mean: bool = False) -> list[float]:
    """Places on an axis; those of steps and tokens are whole, as far as 64 bits hold them."""
    whole = place < 2 and not is_mean and (not len(values) or values.max() < 2**63)
    return values.astype(np.int64).tolist() if whole else values.tolist()  # type: ignore[no-any-return]


def _place_of(axis: str) -> int:
    if axis not in AXES:
        raise InputError(f"there is no axis {shorten(axis, 40)!r}; there are {', '.join(AXES)}")
    return AXES.index(axis)


def _csv(rows: Array, place: int, picks: list[int | None]) -> bytes:
    gone, plain = is_missing(rows), rows.tolist()
    x = _plain(rows[:, place], place)
    lines = []
    for index, row in enumerate(plain):
        cells = ["" if pick is None or gone[index, pick] else repr(row[pick]) for pick in picks]
        if any(cells):
            lines.append(",".join([repr(x[index]), *cells]))
    return "".join(f"{line}\n" for line in lines).encode()


def _quoted(name: str) -> str:
    """A name as a cell, which no spreadsheet takes for a formula."""
    safe = shorten(name, 100).replace('"', '""')
    return f'"{safe}"' if not safe.startswith(("=", "+", "-", "@")) else f'"\'{safe}"'

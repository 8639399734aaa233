"""The points of a chart: any range of the series of a run, in as many buckets as it has room for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from etude.errors import InputError
from etude.records.store import Run
from etude.text import shorten
from etude.ui.columns import AXES, Columns, open_columns
from etude.ui.tables import COUNT, FACTOR, LEAST, MOST, ODD, SUM, Array, Table, is_missing

FIRST_SECONDS, PATIENCE_SECONDS = 0.2, 0.5  # of reading: for the first chart, and for each that follows
_MOST_ODD = 100
_LEAD, _LEAD_BUCKETS = 20, 512  # half-lives before a range that its mean remembers, and in how many buckets
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
    half_life: float | None = None,
) -> dict[str, Any]:
    """Series between two places of an axis, each in at most twice as many buckets as `points`.

    Of a long journal that was never read it is what a moment of reading gives, and `read` says which part.
    A bucket of one record is its value; one of 4, 16 ... has mean, least and most of the finite values. Of a
    series that the run has not, there is nothing. `extent` is where the records of the run lie.

    at: steps, whose places on the axis are told too
    half_life: in steps, of an exponential mean; `before` is what the records before the range leave of it

    Raises: InputError for another axis; as `Columns.update`.
    """
    place = _place_of(axis)
    columns = open_columns(run)
    columns.update(PATIENCE_SECONDS if columns.size else FIRST_SECONDS)
    with columns.turn:
        series = {
            name: _series(columns, name, place, (low, high), points, half_life)
            for name in names or columns.names()
        }
        told = {
            "size": columns.size,
            "axis": axis,
            "damaged_lines": columns.damaged,
            "left_out": columns.left_out,
            "extent": _extent(columns, place),
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


def _extent(columns: Columns, place: int) -> list[float] | None:
    """The first and the last place of all records on an axis; None without a record."""
    tables = [table for table in columns.tables if table.count]
    ends = [table.rows(at, at + 1)[0, place] for table in tables for at in (0, table.count - 1)]
    return [float(min(ends)), float(max(ends))] if ends else None


def _series(
    columns: Columns,
    name: str,
    place: int,
    between: tuple[float | None, float | None],
    points: int,
    half_life: float | None,
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
    first = start // FACTOR**level * FACTOR**level
    before = _before(table, column, first, half_life) if half_life else {}
    if level:
        return {**_buckets(table, column, place, (start, stop), level), **before}
    rows = table.rows(start, stop)
    rows = rows[~is_missing(rows[:, column])]
    return {
        "count": table.count, "bucket": 1, "x": _plain(rows[:, place], place), **_steps(rows[:, 0], place),
        "mean": _finite(rows[:, column]), **_odd(rows, column, place), **before,
    }  # fmt: skip


def _before(table: Table, column: int, stop: int, half_life: float) -> dict[str, Any]:
    """The memory of an exponential mean before a row: step of the last record, weight of all, their mean.

    A record has weight 1 at its step and half of it one half-life later. Empty without a finite value.
    """
    if not stop:
        return {}
    last = table.rows(stop - 1, stop)[0, 0]
    start, level = table.find(0, last - _LEAD * half_life), 0
    while stop - start > _LEAD_BUCKETS * FACTOR**level:
        level += 1
    whole = max(stop // FACTOR**level * FACTOR**level, start)
    rest = table.rows(whole, stop)
    known = np.isfinite(rest[:, column])
    found = table.buckets(start, whole, level) if whole > start else np.zeros((0, table.width, ODD + 1))
    found = found[found[:, column, COUNT] > 0]
    steps = np.concatenate([found[:, 0, SUM] / found[:, 0, COUNT], rest[known, 0]])
    counts = np.concatenate([found[:, column, COUNT], np.ones(known.sum())])
    sums = np.concatenate([found[:, column, SUM], rest[known, column]])
    weights = 0.5 ** ((last - steps) / half_life)
    total = float(weights @ counts)
    return {"before": [float(last), total, float(weights @ sums) / total]} if total else {}


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
        steps = found[:, 0, SUM] / found[:, 0, COUNT]
    shown = has | (found[:, column, ODD] > 0)  # a bucket of nothing but NaN is a break of the line
    series = {
        "count": table.count, "bucket": size, "x": _plain(x[shown], place, is_mean=True),
        **_steps(steps[shown], place), "mean": _finite(mean[shown]),
        "low": _finite(found[shown, column, LEAST]), "high": _finite(found[shown, column, MOST]),
    }  # fmt: skip
    count = int(found[:, column, ODD].sum())
    return series | ({"odd": told[:_MOST_ODD], "odd_count": count} if told else {})


def _steps(steps: Array, place: int) -> dict[str, Any]:
    """The steps of points, where these lie on another axis."""
    return {"step": steps.tolist()} if place else {}


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

"""Curves for the terminal, in braille characters of 2 x 4 dots."""

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a character, by column and row


class Scale(NamedTuple):
    """The values at the lower and the upper edge of so many lines."""

    low: float
    high: float
    lines: int

    def row(self, value: float) -> int:
        """The row of dots of a value, from the top; beyond an edge that of the edge."""
        span = self.high / 2 - self.low / 2  # half, as the whole may be beyond the largest float
        share = (value / 2 - self.low / 2) / (span or 0.5)
        return round((1 - min(max(share, 0.0), 1.0)) * (4 * self.lines - 1))


class Mark(NamedTuple):
    """A sign in a curve, at a place on its axis and a value."""

    place: float
    value: float
    sign: str


class Curve(NamedTuple):
    """The lines of a curve, and the values at the upper and at the lower edge."""

    lines: list[str]
    high: float
    low: float


def braille_curve(
    values: Sequence[float],
    width: int,
    height: int,
    *,
    ends: Sequence[int] = (),
    marks: Sequence[Mark] = (),
) -> Curve:
    """A curve in `height` lines of `width` characters, 2 x 4 dots each, with marks at their own values.

    Each value is a level over its own stretch, and nothing is drawn between levels that was not measured:
    neighbours are joined only where each column has a value of its own. What is not finite leaves a gap. The
    edges are at the largest and the smallest of the levels and marks; a later mark covers an earlier one.

    ends: where each stretch ends, as in steps; by default they are equally long.
    """
    ends = ends or range(1, len(values) + 1)
    columns = _columns(values, ends, 2 * width)
    shown = [mark for mark in marks if math.isfinite(mark.value)]
    levels = [level for level, _ in columns if math.isfinite(level)] + [mark.value for mark in shown]
    if not levels:
        return Curve([" " * width] * height, math.nan, math.nan)
    scale, last = Scale(min(levels), max(levels), height), ends[-1] if ends else 1
    are_joined = [is_own and after for (_, is_own), (_, after) in itertools.pairwise(columns)]
    lines = draw_levels([level for level, _ in columns], [*are_joined, False], width, scale)
    for mark in shown:
        x = math.ceil(mark.place * 2 * width / last) - 1  # where its stretch ends
        lines[scale.row(mark.value) // 4][min(max(x, 0) // 2, width - 1)] = mark.sign
    return Curve(["".join(line) for line in lines], scale.high, scale.low)


def draw_levels(
    levels: Sequence[float], are_joined: Sequence[bool], width: int, scale: Scale
) -> list[list[str]]:
    """Characters by line and column of a level for each column of dots; what is not finite leaves a gap.

    are_joined: whether a line goes from each level to the next.
    """
    cells = [[0] * width for _ in range(scale.lines)]
    before: int | None = None
    for x, (level, is_joined) in enumerate(zip(levels, are_joined)):
        y = scale.row(level) if math.isfinite(level) else None
        if y is not None:
            start = y if before is None else before + (y > before) - (y < before)
            for dot in range(min(y, start), max(y, start) + 1):
                cells[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        before = y if is_joined else None
    return [[chr(0x2800 + cell) if cell else " " for cell in line] for line in cells]


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve on one line, eight levels high; non-finite values are blank."""
    columns = [value for value, _ in _columns(values, range(1, len(values) + 1), min(width, len(values)))]
    finite = [value for value in columns if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / span)] if math.isfinite(v) else " " for v in columns)


def _columns(values: Sequence[float], ends: Sequence[int], columns: int) -> list[tuple[float, bool]]:
    """Mean of the finite values whose stretch ends in each column, and True; else the value that goes on."""
    levels = []
    for x in range(columns if values else 0):
        first, last = (bisect_right(ends, place * ends[-1] / columns) for place in (x, x + 1))
        ended = values[first:last]
        finite = [value for value in ended or [values[first]] if math.isfinite(value)]
        levels.append((sum(finite) / len(finite) if finite else math.nan, bool(ended)))
    return levels

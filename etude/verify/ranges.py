"""Arithmetic with intervals: a printed 2.85 stands for [2.845, 2.855], and so does what follows from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_SLACK = 1e-9  # of floating point, relative


@dataclass(frozen=True)
class Range:
    """All numbers from low to high."""

    low: float
    high: float

    def __add__(self, other: "Range | float") -> "Range":
        right = _range(other)
        return Range(self.low + right.low, self.high + right.high)

    def __sub__(self, other: "Range | float") -> "Range":
        right = _range(other)
        return Range(self.low - right.high, self.high - right.low)

    def __mul__(self, other: "Range | float") -> "Range":
        right = _range(other)
        ends = [a * b for a in (self.low, self.high) for b in (right.low, right.high)]
        return Range(min(ends), max(ends))

    def __truediv__(self, other: "Range | float") -> "Range":
        right = _range(other)
        if right.low <= 0 <= right.high:
            return Range(-math.inf, math.inf)
        ends = [a / b for a in (self.low, self.high) for b in (right.low, right.high)]
        return Range(min(ends), max(ends))

    __radd__ = __add__
    __rmul__ = __mul__

    def map(self, function: Callable[[float], float]) -> "Range":
        """The range under a function that never falls."""
        return Range(_value(function, self.low), _value(function, self.high))

    def meets(self, other: "Range") -> bool:
        """True if both have a number in common, up to floating point; what is not finite meets anything."""
        if not all(map(math.isfinite, (self.low, self.high, other.low, other.high))):
            return True
        slack = _SLACK * max(abs(self.low), abs(self.high), abs(other.low), abs(other.high))
        return self.low <= other.high + slack and other.low <= self.high + slack

    def widen(self, share: float) -> "Range":
        """The range with a share of its ends on each side."""
        return Range(self.low - share * abs(self.low), self.high + share * abs(self.high))

    @property
    def middle(self) -> float:
        """The number between the ends."""
        return self.low / 2 + self.high / 2


def exactly(value: float) -> Range:
    """The range of one number."""
    return Range(value, value)


def around(value: float, half: float) -> Range:
    """The numbers within half of a value."""
    return Range(value - half, value + half)


def _range(value: "Range | float") -> Range:
    return value if isinstance(value, Range) else exactly(value)


def _value(function: Callable[[float], float], at: float) -> float:
    try:
        return function(at)
    except (OverflowError, ValueError):
        return math.inf

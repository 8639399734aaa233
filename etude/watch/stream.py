"""Statistics of a stream in little memory and time: windows, averages, trends and changes of level."""

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_LEAST_SPREAD = 1e-12


class Window:
    """The last `size` values, sorted beside, so that the median costs nothing and a value a microsecond."""

    __slots__ = ("_order", "_sorted", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, value: float) -> None:
        """Take in a finite value, and drop the oldest of a full window."""
        self._order.append(value)
        insort(self._sorted, value)
        if len(self._order) > self.size:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def clear(self) -> None:
        self._order.clear()
        self._sorted.clear()

    def values(self) -> list[float]:
        """The values, the oldest first."""
        return list(self._order)

    @property
    def is_full(self) -> bool:
        return len(self._order) == self.size

    def median(self) -> float:
        middle = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2

    def deviation(self) -> float:
        """Standard deviation by the median distance from the median, which outliers hardly move."""
        return deviation(self._sorted, self.median())


class Ema:
    """Exponential average whose weights have the mean age of a plain average over `span` values."""

    __slots__ = ("_weight", "count", "value")

    def __init__(self, span: float) -> None:
        self._weight = 2 / (span + 1)
        self.value = math.nan
        self.count = 0

    def add(self, value: float) -> float:
        """Take in a value; returns the average, in which the first values count alike."""
        self.count += 1
        if self.count == 1:
            self.value = value
        else:
            self.value += max(self._weight, 1 / self.count) * (value - self.value)
        return self.value


class Blocks:
    """Means of `length` values each, the last `size` of them: a long series, thinned for trends."""

    __slots__ = ("_count", "_place", "_sum", "length", "means", "places")

    def __init__(self, length: int, size: int) -> None:
        self.length = length
        self.places: deque[float] = deque(maxlen=size)
        self.means: deque[float] = deque(maxlen=size)
        self._count, self._place, self._sum = 0, 0.0, 0.0

    def add(self, place: float, value: float) -> bool:
        """Take in a value at a place, such as a step; returns True if it completes a block."""
        self._count += 1
        self._place += place
        self._sum += value
        if self._count < self.length:
            return False
        self.places.append(self._place / self._count)
        self.means.append(self._sum / self._count)
        self._count, self._place, self._sum = 0, 0.0, 0.0
        return True

    @property
    def is_full(self) -> bool:
        return len(self.means) == self.means.maxlen

    def clear(self) -> None:
        self.places.clear()
        self.means.clear()
        self._count, self._place, self._sum = 0, 0.0, 0.0


class Cusum:
    """Sums of what values exceed `slack` by, up and down, in standard deviations; over `limit` is a change.

    With slack 0.5 and limit 8 a change by one deviation shows after 16 values, and chance exceeds the limit
    once in about 19,000 values a side. Source: Siegmund, Sequential Analysis (1985).
    """

    __slots__ = ("_limit", "_slack", "high", "low")

    def __init__(self, slack: float = 0.5, limit: float = 8.0) -> None:
        self._slack, self._limit = slack, limit
        self.high = self.low = 0.0

    def add(self, score: float) -> int:
        """Take in a value in deviations from the reference; returns 1 if higher now, -1 if lower, else 0."""
        self.high = max(self.high + score - self._slack, 0.0)
        self.low = max(self.low - score - self._slack, 0.0)
        if self.high > self._limit:
            return 1
        return -1 if self.low > self._limit else 0

    def clear(self) -> None:
        self.high = self.low = 0.0


def deviation(values: Sequence[float], middle: float | None = None) -> float:
    """Standard deviation by the median distance from the middle (by default the median)."""
    center = statistics.median(values) if middle is None else middle
    return _MAD_TO_DEVIATION * statistics.median([abs(value - center) for value in values])


def noise(values: Sequence[float]) -> float:
    """Standard deviation of the values about a smooth curve, by their second differences; NaN below four."""
    if len(values) < 4:
        return math.nan
    bends = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:])]
    return _MAD_TO_DEVIATION * statistics.median(map(abs, bends)) / math.sqrt(6)


def theil_sen(
    places: Sequence[float], values: Sequence[float], score: float = 2.0
) -> tuple[float, float, float]:
    """Median slope between all pairs, and its interval at `score` standard errors, of a few dozen values.

    Values at one place have no slope that is known: 0, between minus infinity and infinity.
    Source: Sen, Estimates of the regression coefficient based on Kendall's tau (1968).
    """
    slopes = sorted(
        (values[j] - values[i]) / (places[j] - places[i])
        for j in range(len(values))
        for i in range(j)
        if places[j] != places[i]
    )
    count = len(slopes)
    if not count:
        return 0.0, -math.inf, math.inf
    margin = score * math.sqrt(_kendall_variance(len(values))) / 2
    low = slopes[max(math.floor(count / 2 - margin), 0)]
    high = slopes[min(math.ceil(count / 2 + margin), count - 1)]
    return statistics.median(slopes), low, high


def mann_kendall(values: Sequence[float]) -> float:
    """Standard score of the rising pairs less the falling ones; above 3.7 chance has one part in 10,000.

    Source: Mann, Nonparametric tests against trend (1945); ties as Kendall (1970) counts them.
    """
    count = len(values)
    rises = sum((values[j] > values[i]) - (values[j] < values[i]) for j in range(count) for i in range(j))
    ties: dict[float, int] = {}
    for value in values:
        ties[value] = ties.get(value, 0) + 1
    variance = _kendall_variance(count) - sum(t * (t - 1) * (2 * t + 5) / 18 for t in ties.values())
    if variance <= 0 or not rises:
        return 0.0
    return (rises - math.copysign(1, rises)) / math.sqrt(variance)


def at_least(spread: float, floor: float) -> float:
    """A spread that can be divided by: no less than a floor, and above zero."""
    return max(spread, floor, _LEAST_SPREAD)


def _kendall_variance(count: int) -> float:
    return count * (count - 1) * (2 * count + 5) / 18

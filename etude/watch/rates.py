"""The learning rates of the last points, which explain a loss that jumped."""

from collections import deque

from etude.watch.point import Point

_POINTS, _RISE = 50, 1.5


class Rates:
    """The learning rates of the last 50 points.

    Adam moves each weight by about the rate, so that a rate which rose is the likeliest cause of a jump.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[int, float]] = deque(maxlen=_POINTS)

    def add(self, point: Point) -> None:
        """Take in the rate of a point, if it has one."""
        if point.learning_rate is not None and point.learning_rate > 0:
            self._last.append((point.step, point.learning_rate))

    def causes(self) -> list[str]:
        """The cause that the rate rose by a half, with its figures; none where it did not."""
        if not self._last:
            return []
        end, high = max(self._last, key=lambda each: each[1])
        start, low = min((each for each in self._last if each[0] <= end), key=lambda each: each[1])
        if high <= _RISE * low:
            return []
        return [f"a learning rate that rose from {low:.3g} at step {start:,} to {high:.3g} at step {end:,}"]

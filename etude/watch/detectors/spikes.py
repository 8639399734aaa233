"""Training losses that jump above those before them."""

import math
import statistics
from collections import deque
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point, clipping
from etude.watch.rates import Rates
from etude.watch.stream import Window, at_least, deviation

_PALM = "PaLM (arXiv:2204.02311): about 100 steps back and 200 to 500 batches skipped"


class Spike:
    """A loss far above those before it together with a gradient norm far above those before it.

    Rule: the log of the norm is over 6 robust deviations above the median of the last 200 points, and within
    5 points the loss is over 4 above its own, and higher by a tenth and by 0.05. At least 20 points come
    before. The next is told 100 points later at the earliest. A warning if the learning rate rose by a half
    just before, else a remark, as most come back by themselves; one that stays up is a divergence.
    Source: ZClip (arXiv:2504.02507) for the score on norms; 6 and 4 from the 29 curves of tuning.
    Delay: at most 5 points. False alarms: none on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "spike"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._losses: deque[float] = deque(maxlen=200)
        self._norms, self._rates = Window(200), Rates()
        self._points = self._quiet_until = 0
        self._norm: tuple[int, int, float, float] | None = (
            None  # place, step, norm and median of the last jump
        )

    def observe(self, point: Point) -> Finding | None:
        loss, norm = point.loss, point.grad_norm
        if loss is None or point.skipped or not math.isfinite(loss):
            return None
        self._points += 1
        self._rates.add(point)
        if norm is not None and 0 < norm < math.inf:
            self._watch_norm(point.step, math.log(norm))
        found = self._judge(point.step, loss) if len(self._losses) >= 20 else None
        self._losses.append(loss)
        return found

    def untold(self) -> str | None:
        return "no gradient norms, which tell spikes from hard batches" if not len(self._norms) else None

    def _watch_norm(self, step: int, norm: float) -> None:
        if len(self._norms) >= 20:
            median = self._norms.median()
            if norm > median + 0.3 and norm > median + 6 * at_least(self._norms.deviation(), 0.05):
                self._norm = self._points, step, math.exp(norm), math.exp(median)
        self._norms.add(norm)

    def _judge(self, step: int, loss: float) -> Finding | None:
        if self._norm is None or self._points - self._norm[0] > 5 or self._points < self._quiet_until:
            return None
        median = statistics.median(self._losses)
        deviations = (loss - median) / at_least(deviation(self._losses, median), 0.005 * abs(median))
        if loss - median < max(0.1 * abs(median), 0.05) or deviations < 4:
            return None
        _, since, norm, usual = self._norm
        rates = self._rates.causes()
        self._norm, self._quiet_until = None, self._points + 100
        return Finding(
            step,
            "the loss jumped, and the gradient with it",
            f"loss {loss:.4g} at step {step:,} where {median:.4g} was usual ({deviations:.0f} deviations); "
            f"gradient norm {norm:.3g} at step {since:,} where {usual:.3g} was usual",
            "look at the batches of these steps; if the loss does not come back within 100 steps, go back "
            f"to the checkpoint before them and skip these batches{clipping(self._facts)[0]}",
            severity="warning" if rates else "info",
            window=[since, step],
            causes=[
                *rates,
                "a batch unlike the others",
                "a learning rate at the edge of what is stable",
            ],
            changes=clipping(self._facts)[1],
            not_tested=["whether the same batches spike from other weights"],
            kind=self.kind,
            confidence=0.6,
            source=_PALM,
        )


# Nats: four standard errors of a mean over n targets are this by the root of n, if the loss of a target
# scatters by 2.5 and those of a row scatter together, as twice as few would.
_NOISE_OF_ONE = 14.0


class Spikes:
    """Losses that jump above their neighbours again and again.

    Rule: a spike is over 1.5 times the median of the 11 points before it, over 4 robust deviations above it
    and higher by 0.05, or by the noise of a batch of so many targets; of more than two in a row the first two
    count. Reported are two or more that make up 1 % of the points, if 0.3 % of them, what healthy
    runs have, would give as many by chance (Poisson) in less than 1 of 50 runs.
    Source: label rule of the real curves; 0.3 % is the most of 27 healthy ones.
    Delay: the second to the fifth spike. False alarms: none on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "spikes"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._before, self._rates = Window(11), Rates()
        self._points = 0
        self._spikes: list[tuple[int, float, float]] = []
        self._in_a_row = 0
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss = point.loss
        if loss is None or point.skipped or not math.isfinite(loss):
            return None
        self._points += 1
        self._rates.add(point)
        is_spike = len(self._before) >= 6 and self._is_spike(loss, point.targets)
        self._in_a_row = self._in_a_row + 1 if is_spike else 0
        is_new = is_spike and self._in_a_row <= 2 and not self._is_reported  # more are a new level
        if is_new:
            self._spikes.append((point.step, loss, self._before.median()))
        self._before.add(loss)
        return self._judge(point.step) if is_new else None

    def untold(self) -> str | None:
        return None

    def _is_spike(self, loss: float, targets: int | None) -> bool:
        median, least = self._before.median(), max(0.05, _NOISE_OF_ONE / math.sqrt(targets or math.inf))
        return loss > max(1.5 * median, median + least) and loss > median + 4 * self._before.deviation()

    def _judge(self, step: int) -> Finding | None:
        count, expected = len(self._spikes), 0.003 * self._points
        if count < 2 or count < 0.01 * self._points or _at_least(count, expected) >= 0.02:
            return None
        self._is_reported = True
        shown = ", ".join(
            f"{loss:.3g} at step {at:,} (usual {usual:.3g})" for at, loss, usual in self._spikes[-3:]
        )
        return Finding(
            step,
            "the loss jumps again and again",
            f"{count} of {self._points:,} points are over 1.5 times the median of those before them, "
            f"the latest "
            f"{shown}",
            "use a larger train.global_batch_size or a lower optim.learning_rate; look at the batches of "
            f"these steps{clipping(self._facts)[0]}",
            window=[self._spikes[0][0], step],
            causes=[
                *self._rates.causes(),
                "batches that are too small for their noise",
                "rows unlike the others",
                "a high learning rate",
            ],
            changes=clipping(self._facts)[1],
            not_tested=["the loss of each row of these batches"],
            kind=self.kind,
            confidence=0.5,
        )


def _at_least(count: int, expected: float) -> float:
    """Probability of at least `count` events where `expected` are usual (Poisson)."""
    below, term = 0.0, math.exp(-expected)
    for number in range(count):
        below += term
        term *= expected / (number + 1)
    return 1 - below

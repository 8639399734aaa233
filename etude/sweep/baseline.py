"""A trial beside what takes no training of a network: the most frequent class, word counts, frequencies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from etude.recipe.metric import ChosenMetric
from etude.records.events import DataUsed, Evaluation, Scores
from etude.report.verdict import BEFORE
from etude.report.wording import short
from etude.scores.intervals import Difference

_NORMAL = 1.959964  # half the width of an interval of 95 %, in standard errors


@dataclass(frozen=True)
class Baseline:
    """The best baseline on the rows that a trial is measured on.

    value      its metric
    rows       the kind of rows, as `test`
    gain       by how much the trial is better, with its interval; NaN where the noise is not known
    is_beaten  True if the trial is better than every baseline beyond the noise; None where that is not known
    """

    name: str
    value: float
    rows: str
    gain: Difference
    is_beaten: bool | None

    @property
    def text(self) -> str:
        """The baseline with its value, and how far the trial is from it."""
        sign, way = (1, "better") if self.gain.value >= 0 else (-1, "worse")
        low, high = sorted([sign * self.gain.low, sign * self.gain.high])
        around = f" [{low:.3g}, {high:.3g}]" if math.isfinite(low + high) else ""
        lead = f"{short(abs(self.gain.value))}{around} {way} than that"
        return f"{self.name} has {short(self.value, 4)} on {self.rows} rows, and it is {lead}"


def baseline_of_scores(scores: Scores | None, metric: ChosenMetric) -> Baseline | None:
    """The best baseline of final scores, which are of the metric; None if they have none."""
    systems = {} if scores is None else scores.systems
    values = {
        name: figures[metric.name][0]
        for name, figures in systems.items()
        if name not in ("after", BEFORE) and math.isfinite(figures.get(metric.name, [math.nan])[0])
    }
    if scores is None or not values:
        return None
    gains = {name: _gain(scores, name, metric) for name in values}
    best = max(values, key=lambda name: metric.gain(values[name], 0.0))
    rows = scores.split.rpartition(" ")[2]
    return Baseline(best, values[best], rows, gains[best], _are_beaten(list(gains.values())))


def baseline_of_tokens(
    data: DataUsed | None, best: Evaluation | None, metric: ChosenMetric
) -> Baseline | None:
    """The loss of a model that knows how frequent each token is, and no more; None for other metrics."""
    entropy = data.entropy if data else None
    if entropy is None or best is None or str(metric) != "loss" or not math.isfinite(best.loss):
        return None
    reach = math.nan if best.loss_error is None else _NORMAL * best.loss_error
    gain = Difference(entropy - best.loss, entropy - best.loss - reach, entropy - best.loss + reach)
    return Baseline("the frequency of tokens", entropy, "training", gain, _are_beaten([gain]))


def _gain(scores: Scores, name: str, metric: ChosenMetric) -> Difference:
    """By how much a trial is better than a baseline: over the same resamples, else by both intervals."""
    if name in scores.gains:
        value, *ends = (metric.sign * each for each in scores.gains[name])
        return Difference(value, *sorted(ends))
    own, other = (scores.systems[each][metric.name] for each in ("after", name))
    value = metric.gain(own[0], other[0])
    reach = math.hypot(own[2] - own[1], other[2] - other[1]) / 2
    return Difference(value, value - reach, value + reach)


def _are_beaten(gains: Sequence[Difference]) -> bool | None:
    """True if all gains are beyond the noise; None if that of none is known to be within it."""
    if any(gain.low <= 0 or gain.value <= 0 for gain in gains):
        return False
    return None if any(math.isnan(gain.low) for gain in gains) else True

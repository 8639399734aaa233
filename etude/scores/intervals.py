"""Intervals of 95 % for figures of rows that are a sample: bootstrap by the percentile method.

Source: doi:10.1007/978-1-4899-4541-9 (chapters 13, 16). They know nothing of other seeds of training;
`difference_of_means` knows of nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etude.interruption import interruption_point, with_points
from etude.scores.answers import FIGURES, Answer
from etude.scores.labels import Floats, Ints, Labels, figures_of, outcomes_of, tabulate

_CONFIDENCE = 0.95
_BLOCK_CELLS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """The range of a figure; NaN where there are too few rows to say."""

    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Difference:
    """A figure of one system less that of another on the same rows, and the interval of that."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """True if the rows do not show which system is better."""
        return not (self.low > 0 or self.high < 0)


def bootstrap(figure: Callable[[Ints], float], rows: int, *, seed: int = 0, samples: int = 1000) -> Interval:
    """The interval of a figure, a function of row numbers; resamples where it is NaN do not count."""
    if rows < 2:
        return Interval(math.nan, math.nan, math.nan)
    draw = np.random.default_rng(seed)
    values = []
    for _ in range(samples):
        interruption_point()
        values.append(figure(draw.integers(0, rows, rows)))
    return _interval(np.array(values))


def paired_difference(
    figure_a: Callable[[Ints], float], figure_b: Callable[[Ints], float], rows: int, *, samples: int = 1000
) -> Difference:
    """Figure a less figure b, both of the same resamples, so that what is hard for both cancels."""
    interval = bootstrap(lambda chosen: figure_a(chosen) - figure_b(chosen), rows, samples=samples)
    everything = np.arange(rows)
    value = figure_a(everything) - figure_b(everything) if rows else math.nan
    return Difference(value, interval.low, interval.high)


def difference_of_means(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """The mean of a less that of b, with the t-interval for unequal spreads; a value is that of a seed.

    A single value is held to be as spread as the other side; of two single values nothing is known: None.
    Source: doi:10.1093/biomet/34.1-2.28.
    """
    if not a or not b or len(a) + len(b) < 3:
        return None
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, whose import takes a second

    value = float(np.mean(a) - np.mean(b))
    several = [side for side in (a, b) if len(side) > 1]
    errors = [float(np.var(side if len(side) > 1 else several[0], ddof=1)) / len(side) for side in (a, b)]
    if sum(errors) == 0:
        return Difference(value, value, value)
    if len(several) == 2:
        freedom = sum(errors) ** 2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, several))
    else:
        freedom = len(several[0]) - 1
    reach = float(stdtrit(freedom, (1 + _CONFIDENCE) / 2)) * math.sqrt(sum(errors))
    return Difference(value, value - reach, value + reach)


def label_bootstrap(
    truth: Labels,
    predicted: Labels,
    names: Sequence[str],
    *,
    multi: bool,
    figures: Sequence[str],
) -> dict[str, Interval]:
    """The intervals of some figures of `score_labels`; a resample is drawn as a table, which is fast."""
    outcomes, counts = tabulate(truth, predicted, len(names), multi=multi)
    rows = len(truth)
    sums = _resampled_sums(outcomes, counts) if rows > 1 else np.zeros((0, outcomes.shape[1]))
    values = figures_of(sums, counts @ outcomes, rows, names, multi=multi)
    return {name: _interval(values[name]) for name in figures}


def label_difference(
    truth: Labels, a: Labels, b: Labels, names: Sequence[str], *, multi: bool, figure: str
) -> Difference:
    """A figure of `score_labels` for labels a less that for labels b, over the same resamples of the rows.

    Rows where truth and both say the same are one cell of a table, which is drawn as one: some 100 times
    faster than to score each resample.
    """
    k, rows = len(names), len(truth)
    columns = [each if multi else each[:, None] for each in (truth, a, b)]
    cells, counts = np.unique(np.hstack(columns), axis=0, return_counts=True)
    said = np.split(cells, 3, axis=1) if multi else list(cells.T)
    outcomes = [outcomes_of(said[0], each, k, multi=multi) for each in said[1:]]
    sums = np.split(_resampled_sums(np.hstack(outcomes), counts), 2, axis=1) if rows > 1 else []
    # What is 0/0 in a resample is 0 for both, as in the figure itself: left out, it would take a side.
    nothing = np.zeros(outcomes[0].shape[1])
    wholes = [counts @ each for each in outcomes]
    values = [figures_of(whole, nothing, rows, names, multi=multi)[figure] for whole in wholes]
    drawn = [figures_of(each, nothing, rows, names, multi=multi)[figure] for each in sums]
    interval = _interval(drawn[0] - drawn[1]) if drawn else Interval(math.nan, math.nan, math.nan)
    return Difference(float(values[0] - values[1]) if rows else math.nan, interval.low, interval.high)


def ratio_bootstrap(parts: Floats) -> Interval:
    """The interval of the sum of one column over that of another, of parts (rows, 2), as of a mean loss."""
    return _interval(_resampled_ratio(parts))


def ratio_difference(a: Floats, b: Floats) -> Difference:
    """Such a ratio of a less that of b, over the same resamples of the rows (rows, 2) of both."""
    (top_a, bottom_a), (top_b, bottom_b) = a.sum(axis=0), b.sum(axis=0)
    interval = _interval(_resampled_ratio(a) - _resampled_ratio(b))
    return Difference(float(top_a / bottom_a - top_b / bottom_b), interval.low, interval.high)


def answer_bootstrap(
    answers: Sequence[Answer], figures: Sequence[str], *, samples: int = 1000
) -> dict[str, Interval]:
    """The intervals of some figures of `answers.score`, of the same resamples; an answer is scored once."""
    return {name: _interval(_resampled_figure(name, answers, samples)) for name in figures}


def answer_difference(
    answers_a: Sequence[Answer], answers_b: Sequence[Answer], figure: str, *, samples: int = 1000
) -> Difference:
    """A figure of `answers.score` for answers a less that for answers b to the same questions."""
    assert len(answers_a) == len(answers_b)
    value = FIGURES[figure](answers_a) - FIGURES[figure](answers_b)
    a, b = (_resampled_figure(figure, answers, samples) for answers in (answers_a, answers_b))
    interval = _interval(a - b)
    return Difference(value, interval.low, interval.high)


def _resampled_ratio(parts: Floats, samples: int = 1000) -> Floats:
    if len(parts) < 2:
        return np.full(samples, math.nan)
    sums = _resampled_sums(parts, np.ones(len(parts), dtype=np.int64), samples)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without a target tells nothing
        return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], math.nan)


def _resampled_figure(name: str, answers: Sequence[Answer], samples: int) -> Floats:
    """A figure, (samples,), of as many answers drawn again: the same places of every list as long."""
    rows = len(answers)
    if rows < 2:
        return np.full(samples, math.nan)
    parts = _parts(name, answers)
    if parts is not None:
        sums = _resampled_sums(parts[0], np.ones(rows, dtype=np.int64), samples)
        return np.array([parts[1](row) for row in sums])
    draw = np.random.default_rng(0)
    values = []
    for _ in range(samples):
        interruption_point()
        values.append(FIGURES[name]([answers[row] for row in draw.integers(0, rows, rows)]))
    return np.array(values)


def _interval(values: Floats) -> Interval:
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(float(low), float(high), float(known.std(ddof=1)))


def _resampled_sums(parts: Floats, counts: Ints, samples: int = 1000) -> Floats:
    """Sums, (samples, c), over as many rows drawn again; row i of parts, (r, c), stands for counts[i]."""
    draw, rows = np.random.default_rng(0), int(counts.sum())
    sums, block = np.empty((samples, parts.shape[1])), max(_BLOCK_CELLS // len(counts), 1)
    for start in range(0, samples, block):
        interruption_point()
        size = min(block, samples - start)
        drawn = draw.multinomial(rows, counts / rows, size=size)
        sums[start : start + size] = drawn.astype(np.float64) @ parts
    return sums


def _parts(name: str, answers: Sequence[Answer]) -> tuple[Floats, Callable[[Floats], float]] | None:
    """Addends of each answer to the sums of a figure, (n, c), and its function of such sums, or None."""
    if name in ("bleu", "chrf"):
        return _corpus_parts(name, answers)
    if name == "distinct_2":  # no sum: what is different in one answer may be in another
        return None
    values = np.array([FIGURES[name]([answer]) for answer in with_points(answers)])
    counted = ~np.isnan(values)
    mean = lambda sums: float(sums[0] / sums[1]) if sums[1] else math.nan  # noqa: E731
    return np.column_stack([np.where(counted, values, 0.0), counted]), mean


def _corpus_parts(name: str, answers: Sequence[Answer]) -> tuple[Floats, Callable[[Floats], float]] | None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    metric = BLEU() if name == "bleu" else CHRF()
    # sacrebleu's own bootstrap goes this way, but has no public name for it: do without where it is gone.
    if not (hasattr(metric, "_extract_corpus_statistics") and hasattr(metric, "_aggregate_and_compute")):
        return None
    texts, references = [answer.text for answer in answers], [answer.reference for answer in answers]
    parts = np.array(metric._extract_corpus_statistics(texts, [references]), dtype=np.float64)
    return parts, lambda sums: float(metric._aggregate_and_compute([sums.tolist()]).score)

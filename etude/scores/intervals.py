"""How far a figure may be off because the rows are a sample: bootstrap intervals by the percentile method.

Source: doi:10.1007/978-1-4899-4541-9 (chapters 13, 16). They know nothing of other seeds of training;
`difference_of_means` knows of nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etude.scores.answers import FIGURES, Answer
from etude.scores.labels import Floats, Ints, Labels, figures_of, tabulate

_BLOCK_CELLS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with the confidence that was asked for; NaN where there are too few rows to say."""

    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Difference:
    """How much more a figure of one system is than that of another on the same rows, and the interval of
    that.
    """

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the rows do not show which system is better."""
        return not (self.low > 0 or self.high < 0)


def bootstrap(
    figure: Callable[[Ints], float],
    rows: int,
    *,
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """The interval of a figure, given as a function of row numbers; resamples where it is NaN do
    not count."""
    if rows < 2:
        return Interval(math.nan, math.nan, math.nan)
    draw = np.random.default_rng(seed)
    return _interval(np.array([figure(draw.integers(0, rows, rows)) for _ in range(samples)]), confidence)


def paired_difference(
    figure_a: Callable[[Ints], float],
    figure_b: Callable[[Ints], float],
    rows: int,
    *,
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> Difference:
    """By how much figure a is above figure b, both of the same resamples, so that what is hard for both
    cancels.
    """
    interval = bootstrap(
        lambda chosen: figure_a(chosen) - figure_b(chosen),
        rows,
        seed=seed,
        samples=samples,
        confidence=confidence,
    )
    everything = np.arange(rows)
    value = figure_a(everything) - figure_b(everything) if rows else math.nan
    return Difference(value, interval.low, interval.high)


def difference_of_means(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95
) -> Difference | None:
    """By how much the mean of a is above that of b, with the t-interval for unequal spreads; one value each
    per seed.

    A single value is held to be as spread as the other side; of two single values nothing is known: None.
    Source: doi:10.1093/biomet/34.1-2.28.
    """
    from scipy.stats import t

    if not a or not b or len(a) + len(b) < 3:
        return None
    value = float(np.mean(a) - np.mean(b))
    several = [side for side in (a, b) if len(side) > 1]
    errors = [float(np.var(side if len(side) > 1 else several[0], ddof=1)) / len(side) for side in (a, b)]
    if sum(errors) == 0:
        return Difference(value, value, value)
    if len(several) == 2:
        freedom = sum(errors) ** 2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, several))
    else:
        freedom = len(several[0]) - 1
    reach = float(t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(errors))
    return Difference(value, value - reach, value + reach)


def label_bootstrap(
    truth: Labels,
    predicted: Labels,
    names: Sequence[str],
    *,
    multi: bool,
    figures: Sequence[str],
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """The intervals of some figures of `score_labels`; a resample is drawn as a table, which is the same and
    fast.
    """
    outcomes, counts = tabulate(truth, predicted, len(names), multi=multi)
    rows = len(truth)
    sums = _resampled_sums(outcomes, counts, seed, samples) if rows > 1 else np.zeros((0, outcomes.shape[1]))
    values = figures_of(sums, counts @ outcomes, rows, names, multi=multi)
    return {name: _interval(values[name], confidence) for name in figures}


def answer_bootstrap(
    answers: Sequence[Answer],
    figures: Sequence[str],
    *,
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """The intervals of some figures of `answers.score`, all of the same resamples; each answer is scored but
    once.
    """
    return {name: _interval(_resampled_figure(name, answers, seed, samples), confidence) for name in figures}


def answer_difference(
    answers_a: Sequence[Answer],
    answers_b: Sequence[Answer],
    figure: str,
    *,
    seed: int = 0,
    samples: int = 1000,
    confidence: float = 0.95,
) -> Difference:
    """By how much a figure of `answers.score` is higher for answers a than for answers b to the same
    questions.
    """
    assert len(answers_a) == len(answers_b)
    value = FIGURES[figure](answers_a) - FIGURES[figure](answers_b)
    a, b = (_resampled_figure(figure, answers, seed, samples) for answers in (answers_a, answers_b))
    interval = _interval(a - b, confidence)
    return Difference(value, interval.low, interval.high)


def _resampled_figure(name: str, answers: Sequence[Answer], seed: int, samples: int) -> Floats:
    """A figure, (samples,), of as many answers drawn again; with one seed the same ones of every list as
    long.
    """
    rows = len(answers)
    if rows < 2:
        return np.full(samples, math.nan)
    parts = _parts(name, answers)
    if parts is not None:
        sums = _resampled_sums(parts[0], np.ones(rows, dtype=np.int64), seed, samples)
        return np.array([parts[1](row) for row in sums])
    draw = np.random.default_rng(seed)
    drawn = (draw.integers(0, rows, rows) for _ in range(samples))
    return np.array([FIGURES[name]([answers[row] for row in chosen]) for chosen in drawn])


def _interval(values: Floats, confidence: float) -> Interval:
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), float(known.std(ddof=1)))


def _resampled_sums(parts: Floats, counts: Ints, seed: int, samples: int) -> Floats:
    """Sums, (samples, c), over as many rows as there are, drawn again; row i of parts, (r, c), stands for
    counts[i].
    """
    draw, rows = np.random.default_rng(seed), int(counts.sum())
    sums, block = np.empty((samples, parts.shape[1])), max(_BLOCK_CELLS // len(counts), 1)
    for start in range(0, samples, block):
        size = min(block, samples - start)
        sums[start : start + size] = (
            draw.multinomial(rows, counts / rows, size=size).astype(np.float64) @ parts
        )
    return sums


def _parts(name: str, answers: Sequence[Answer]) -> tuple[Floats, Callable[[Floats], float]] | None:
    """What each answer adds to the sums a figure is made of, (n, c), and the figure of such sums; None if not
    so.
    """
    if name in ("bleu", "chrf"):
        return _corpus_parts(name, answers)
    if name == "distinct_2":  # no sum: what is different in one answer may be in another
        return None
    values = np.array([FIGURES[name]([answer]) for answer in answers])
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

"""Systems beside each other: what they said of the same rows, each figure with its interval, and who is
ahead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from etude.scores.answers import FIGURES, Answer
from etude.scores.intervals import (
    Difference,
    answer_bootstrap,
    answer_difference,
    label_bootstrap,
    paired_difference,
)
from etude.scores.labels import Ints, Labels, score_labels
from etude.scores.order import sort_key

S = TypeVar("S")
_PAIRED = 500  # resamples of a difference of labels, each of which scores all rows twice


@dataclass(frozen=True)
class Measure(Generic[S]):
    """How what a system says of all rows is measured.

    metric      the figure that decides
    intervals   value, low and high of every figure that is shown
    value       the metric on some rows
    difference  by how much the first of two systems is higher in the metric
    """

    metric: str
    intervals: Callable[[S], dict[str, list[float]]]
    value: Callable[[S, Ints], float]
    difference: Callable[[S, S], Difference]


@dataclass(frozen=True)
class Standing:
    """Figures of each system as [value, low, high]; gains of the first over others; the metric by
    capability."""

    systems: dict[str, dict[str, list[float]]]
    gains: dict[str, list[float]]
    capabilities: dict[str, dict[str, float]]


def of_labels(
    truth: Labels, names: Sequence[str], *, multi: bool, figures: Sequence[str], metric: str
) -> Measure[Labels]:
    """Measure labels that are said against those that hold, by figures of `score_labels`."""

    def intervals(said: Labels) -> dict[str, list[float]]:
        values = score_labels(truth, said, names, multi=multi)
        found = label_bootstrap(truth, said, names, multi=multi, figures=figures)
        return {name: [values[name], found[name].low, found[name].high] for name in figures}

    def value(said: Labels, rows: Ints) -> float:
        return score_labels(truth[rows], said[rows], names, multi=multi)[metric]

    def difference(a: Labels, b: Labels) -> Difference:
        return paired_difference(
            lambda rows: value(a, rows), lambda rows: value(b, rows), len(truth), samples=_PAIRED
        )

    return Measure(metric, intervals, value, difference)


def of_answers(figures: Sequence[str], metric: str) -> Measure[Sequence[Answer]]:
    """Measure answers by some of `answers.FIGURES`."""

    def intervals(said: Sequence[Answer]) -> dict[str, list[float]]:
        found = answer_bootstrap(said, figures)
        return {name: [FIGURES[name](said), found[name].low, found[name].high] for name in figures}

    def value(said: Sequence[Answer], rows: Ints) -> float:
        return FIGURES[metric]([said[row] for row in rows.tolist()])

    def difference(a: Sequence[Answer], b: Sequence[Answer]) -> Difference:
        return answer_difference(a, b, metric)

    return Measure(metric, intervals, value, difference)


def set_beside(
    measure: Measure[S],
    systems: dict[str, S],
    kinds: Sequence[str | None],
    against: Sequence[str] | None = None,
) -> Standing:
    """Measure systems on the same rows; kinds: the capability of each row, told apart where there are
    several.

    against: the systems that the first one is held against; all others by default.
    """
    first, *others = systems
    gains = {name: measure.difference(systems[first], systems[name]) for name in against or others}
    known = sorted({kind for kind in kinds if kind is not None}, key=sort_key)
    capabilities = {}
    for kind in known if len(known) > 1 else ():
        rows = np.flatnonzero([each == kind for each in kinds])
        values = {name: measure.value(said, rows) for name, said in systems.items()}
        capabilities[kind] = {"rows": float(len(rows)), **values}
    return Standing(
        systems={name: measure.intervals(said) for name, said in systems.items()},
        gains={name: [gain.value, gain.low, gain.high] for name, gain in gains.items()},
        capabilities=capabilities,
    )

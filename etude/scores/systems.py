"""Scores of several systems on the same rows: figures with intervals, gains, and the metric by capability."""

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
    label_difference,
)
from etude.scores.labels import Ints, Labels, score_labels
from etude.scores.order import sort_key

S = TypeVar("S")


@dataclass(frozen=True)
class Measure(Generic[S]):
    """Functions of the predictions of one system on all rows.

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
class SystemScores:
    """Figures of each system as [value, low, high], gains of the first, and the metric by capability."""

    systems: dict[str, dict[str, list[float]]]
    gains: dict[str, list[float]]
    capabilities: dict[str, dict[str, float]]


def of_labels(
    truth: Labels, names: Sequence[str], *, multi: bool, figures: Sequence[str], metric: str
) -> Measure[Labels]:
    """Measure predicted labels against the true ones, by figures of `score_labels`."""

    def intervals(predicted: Labels) -> dict[str, list[float]]:
        values = score_labels(truth, predicted, names, multi=multi)
        ranges = label_bootstrap(truth, predicted, names, multi=multi, figures=figures)
        return {name: [values[name], ranges[name].low, ranges[name].high] for name in figures}

    def value(predicted: Labels, rows: Ints) -> float:
        return score_labels(truth[rows], predicted[rows], names, multi=multi)[metric]

    def difference(a: Labels, b: Labels) -> Difference:
        return label_difference(truth, a, b, names, multi=multi, figure=metric)

    return Measure(metric, intervals, value, difference)


def of_answers(figures: Sequence[str], metric: str) -> Measure[Sequence[Answer]]:
    """Measure answers by some of `answers.FIGURES`."""

    def intervals(answers: Sequence[Answer]) -> dict[str, list[float]]:
        ranges = answer_bootstrap(answers, figures)
        return {name: [FIGURES[name](answers), ranges[name].low, ranges[name].high] for name in figures}

    def value(answers: Sequence[Answer], rows: Ints) -> float:
        return FIGURES[metric]([answers[row] for row in rows.tolist()])

    return Measure(metric, intervals, value, lambda a, b: answer_difference(a, b, metric))


def score_systems(
    measure: Measure[S],
    systems: dict[str, S],
    kinds: Sequence[str | None],
    against: Sequence[str] | None = None,
) -> SystemScores:
    """Measure systems on the same rows, and by capability where there are several.

    kinds: the capability of each row. against: the systems that the first one is held against; all others by
    default.
    """
    first, *others = systems
    gains = {name: measure.difference(systems[first], systems[name]) for name in against or others}
    known = sorted({kind for kind in kinds if kind is not None}, key=sort_key)
    capabilities = {}
    for kind in known if len(known) > 1 else ():
        rows = np.flatnonzero([row == kind for row in kinds])
        values = {name: measure.value(predicted, rows) for name, predicted in systems.items()}
        capabilities[kind] = {"rows": float(len(rows)), **values}
    return SystemScores(
        systems={name: measure.intervals(predicted) for name, predicted in systems.items()},
        gains={name: [gain.value, gain.low, gain.high] for name, gain in gains.items()},
        capabilities=capabilities,
    )

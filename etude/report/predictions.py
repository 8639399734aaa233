"""Predictions that a run kept of its held-out rows, and differences of two runs on the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from etude.errors import InputError, MissingError
from etude.records.events import Scores
from etude.records.folder import read_rows
from etude.records.shape import Object, at_least
from etude.records.store import Run
from etude.scores import labels
from etude.scores.answers import Answer
from etude.scores.intervals import Difference
from etude.scores.systems import Measure, of_answers, of_labels

_NORMAL = 1.959964  # half the width of an interval of 95 %, in standard errors
_SHARE = Annotated[float, at_least(0, 1)]
# What a run keeps of a row, by the key of the right answer.
_ROWS = {
    "labels": Object(
        {"id": str, "probabilities": list[_SHARE], "labels": list[Annotated[int, at_least(0, 1)] | bool]},
        {"capability": str | None},
    ),
    "reference": Object(
        {"id": str, "answer": str, "reference": str},
        {
            "stopped": bool | None,
            "capability": str | None,
            "log_probability": float | None,
            "tokens": int | None,
        },
    ),
}


def read_predictions(run: Run, split: str, right: str, classes: int = 0) -> list[dict[str, Any]]:
    """The rows that a run kept of a split, which may begin with the name of its task.

    right: key of the right answer. classes: labels that each row is about.

    Raises: InputError if the file is missing or damaged.
    """
    path = run.path / "predictions" / f"{'/'.join(split.split())}.jsonl"
    try:
        rows = read_rows(path, _ROWS[right])
    except MissingError:
        raise InputError(f"run {run.name} has no predictions of {split} rows; run its recipe again") from None
    if classes:
        for place, row in enumerate(rows, start=1):
            if not len(row["probabilities"]) == len(row["labels"]) == classes:
                raise InputError(
                    f"{path} is damaged: line {place} is not of {classes} labels; restore it from a copy"
                )
    return rows


@dataclass(frozen=True)
class Kept:
    """Predictions of a split that a run kept, read once for several comparisons.

    rows   id and right answer of each row
    said   labels (n,) or (n, k), or the answers
    truth  the right labels; None where texts are written
    """

    scores: Scores
    rows: list[tuple[str, Any]]
    said: Any
    truth: Any = None

    def measure(self) -> Measure[Any]:
        """The measure of these rows."""
        metric, names = self.scores.metric, self.scores.labels
        if self.truth is None:
            return of_answers([metric], metric)
        return of_labels(self.truth, names, multi=self.truth.ndim > 1, figures=[metric], metric=metric)

    def standard_error(self) -> float | None:
        """The standard error of the metric from the choice of rows; None of too few rows."""
        _, low, high = self.measure().intervals(self.said)[self.scores.metric]
        return (high - low) / (2 * _NORMAL) if math.isfinite(high - low) else None

    def difference(self, other: "Kept") -> Difference | None:
        """By how much it is higher in the metric, resampled by rows; None if rows or metrics are others."""
        mine, theirs = self.scores, other.scores
        if (mine.split, mine.metric, mine.labels) != (theirs.split, theirs.metric, theirs.labels):
            return None
        if not self.rows or self.rows != other.rows:
            return None
        return self.measure().difference(self.said, other.said)


def read_kept(run: Run, scores: Scores) -> Kept | None:
    """The predictions of the split of scores; None if they cannot be read."""
    right = "labels" if scores.labels else "reference"
    try:
        rows = read_predictions(run, scores.split, right, len(scores.labels))
    except InputError:
        return None
    kept = [(row["id"], row[right]) for row in rows]
    if not scores.labels:
        return Kept(scores, kept, [as_answer(row) for row in rows])
    if not rows:
        return Kept(scores, kept, [], [])
    truth = truth_of(rows)
    return Kept(scores, kept, _choose(rows, scores), truth.argmax(axis=1) if scores.confusion else truth)


def compare_predictions(runs: Sequence[tuple[Run, Scores]]) -> Difference | None:
    """By how much the first of two runs is higher in the metric of their scores, resampled by rows.

    None where their predictions are of other rows, labels or metrics, or cannot be read.
    """
    (_, first), (_, second) = runs
    if (first.split, first.metric, first.labels) != (second.split, second.metric, second.labels):
        return None
    a, b = (read_kept(*each) for each in runs)
    return a.difference(b) if a and b else None


def probabilities_of(rows: Sequence[dict[str, Any]]) -> labels.Floats:
    """(n, k), as kept."""
    return np.array([row["probabilities"] for row in rows], dtype=np.float64)


def truth_of(rows: Sequence[dict[str, Any]]) -> labels.Flags:
    """(n, k), the labels that hold."""
    return np.array([row["labels"] for row in rows], dtype=np.bool_)


def as_answer(row: dict[str, Any]) -> Answer:
    """The answer that a row keeps."""
    return Answer(row["answer"], row["reference"], bool(row.get("stopped")), row.get("capability"))


def _choose(rows: Sequence[dict[str, Any]], scores: Scores) -> labels.Labels:
    """The labels that a run predicted, by the thresholds of its scores where a row has several."""
    probabilities = probabilities_of(rows)
    if scores.confusion:
        best: labels.Ints = probabilities.argmax(axis=1)
        return best
    return probabilities >= np.array(scores.thresholds or [0.5] * len(scores.labels))

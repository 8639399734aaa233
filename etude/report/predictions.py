"""Predictions that a run kept of its held-out rows, and differences of two runs on the same rows."""

from collections.abc import Sequence
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
from etude.scores.systems import of_answers, of_labels

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


def compare_predictions(runs: Sequence[tuple[Run, Scores]]) -> Difference | None:
    """By how much the first of two runs is higher in the metric of their scores, resampled by rows.

    None where their predictions are of other rows, labels or metrics, or cannot be read.
    """
    (first, scores), (second, others) = runs
    if (scores.split, scores.metric, scores.labels) != (others.split, others.metric, others.labels):
        return None
    right = "labels" if scores.labels else "reference"
    try:
        a, b = (read_predictions(run, scores.split, right, len(scores.labels)) for run in (first, second))
    except InputError:
        return None
    if not a or [(row["id"], row[right]) for row in a] != [(row["id"], row[right]) for row in b]:
        return None
    if not scores.labels:
        return of_answers([], scores.metric).difference(
            [as_answer(row) for row in a], list(map(as_answer, b))
        )
    truth, multi = truth_of(a), not scores.confusion
    measure = of_labels(
        truth if multi else truth.argmax(axis=1), scores.labels, multi=multi, figures=[], metric=scores.metric
    )
    return measure.difference(_choose(a, scores), _choose(b, others))


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

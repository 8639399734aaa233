"""Differences of two runs on the rows that both predicted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from etude.errors import InputError
from etude.records.events import Scores
from etude.records.store import Run
from etude.report.history import read_history
from etude.report.predictions import compare_predictions, read_predictions
from tests import misleading as made

Get = Callable[..., Any]


def scored(run: Run) -> tuple[Run, Scores]:
    return run, read_history(run).scores[-1]


def test_the_difference_of_two_classifiers_is_that_of_sklearn_over_resampled_rows(misleading: Get) -> None:
    runs = misleading(made.equal_within_noise)
    found = compare_predictions([scored(run) for run in runs])
    rows = [read_predictions(run, "test", "labels", 3) for run in runs]
    truth, a, b = (
        np.array([np.argmax(row[key]) for row in each])
        for each, key in ((rows[0], "labels"), (rows[0], "probabilities"), (rows[1], "probabilities"))
    )

    def f1(said: np.ndarray, at: np.ndarray) -> float:
        return float(f1_score(truth[at], said[at], average="macro", labels=[0, 1, 2], zero_division=0))

    draw, everything = np.random.default_rng(5), np.arange(len(truth))
    drawn = [draw.integers(len(truth), size=len(truth)) for _ in range(1000)]
    low, high = np.quantile([f1(a, at) - f1(b, at) for at in drawn], [0.025, 0.975])
    assert found is not None and found.value == pytest.approx(f1(a, everything) - f1(b, everything))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03) and found.is_noise


def test_other_rows_or_none_have_no_difference(misleading: Get, tmp_path: Path) -> None:
    a, b = misleading(made.equal_within_noise)
    path = b.path / "predictions" / "test.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[1:], lines[0]]))
    assert compare_predictions([scored(a), scored(b)]) is None
    path.unlink()
    assert compare_predictions([scored(a), scored(b)]) is None
    with pytest.raises(InputError, match="has no predictions of test rows"):
        read_predictions(b, "test", "labels", 3)


def test_a_row_of_another_number_of_labels_is_damage(misleading: Get) -> None:
    run = misleading(made.equal_within_noise)[0]
    path = run.path / "predictions" / "test.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**row, "probabilities": [1.0]}) + "\n")
    with pytest.raises(InputError, match="line 1 is not of 3 labels"):
        read_predictions(run, "test", "labels", 3)

"""Evaluations of a run: all tasks as one record, findings once, and no best that is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Finding
from tests.bases import write_labelled
from tests.objectives.sessions import begun
from tests.recipes import classification, tasks


def test_an_evaluation_has_the_figures_of_all_tasks_and_their_joined_loss(tmp_path: Path) -> None:
    with begun(tasks(tmp_path), tmp_path / "runs") as session:
        (evaluation,) = (e for e in session.examiner.evaluate() if isinstance(e, Evaluation))
        train, metrics = session.plan.train, evaluation.metrics
        expected = sum(
            count * metrics[f"{name}:loss"] for name, count in zip(train.parts, train.counts)
        ) / len(train)
        assert evaluation.loss == pytest.approx(expected)
        assert session.judge.best is not None
        assert session.judge.best["value"] == metrics["kinds:f1"]
        assert [task.name for task in session.examiner.compared()] == ["kinds", "words"]


def test_the_model_before_training_is_never_the_best(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path) as session:
        before = session.examiner.evaluate(before=True)
        assert session.judge.best is None
        assert not any(e.best for e in before if isinstance(e, Evaluation))
        after = session.examiner.evaluate()
        assert [e.best for e in after if isinstance(e, Evaluation)] == [True]


def test_a_model_without_a_finite_loss_is_not_the_best_whatever_its_figures(tmp_path: Path) -> None:
    with begun(classification(write_labelled(tmp_path / "rows.jsonl")), tmp_path / "runs") as session:
        with torch.no_grad():
            for parameter in session.state.model.parameters():
                parameter.fill_(float("nan"))
        (evaluation,) = (e for e in session.examiner.evaluate() if isinstance(e, Evaluation))
        assert evaluation.metrics["f1"] >= 0 and not evaluation.best and session.judge.best is None


def test_a_gain_within_the_noise_is_found_once(tmp_path: Path) -> None:
    recipe = classification(write_labelled(tmp_path / "rows.jsonl"), None, {"evaluate.min_improvement": 1e-6})
    with begun(recipe, tmp_path / "runs") as session:
        found = [[e.what for e in session.examiner.evaluate() if isinstance(e, Finding)] for _ in range(2)]
        assert found == [["improvement within the noise"], []]

"""The held-out samples of one task."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from etude.engine.world import World
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from tests.bases import write_corpus
from tests.objectives.sessions import begun


def test_the_final_scores_are_of_the_test_set_where_there_is_one(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path / "a") as session:
        exam = session.examiner._exam(session.plan.tasks[0])
        assert (exam.scored(), list(exam.held_out())) == ("validation", ["validation"])
        assert "chose the best checkpoint" in exam.notes()[0]
    test = {"data.test": [{"path": str(write_corpus(tmp_path / "test.jsonl", 7))}]}
    with begun(make_recipe(test), tmp_path / "b") as session:
        exam = session.examiner._exam(session.plan.tasks[0])
        assert (exam.scored(), list(exam.held_out())) == ("test", ["validation", "test"])
        assert exam.notes() == []


def test_the_metric_of_the_run_is_the_main_figure_of_its_own_task_only(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe(), tmp_path) as session:
        exam = session.examiner._exam(session.plan.tasks[0])
        chosen = replace(exam, metric=ChosenMetric.parse("kinds:f1"))
        assert replace(chosen, task="kinds").main_figure() == "f1"
        assert replace(chosen, task="words").main_figure() == "loss"


def test_ranks_share_the_samples_and_leave_none_out(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    with begun(make_recipe({"data.sample": "document"}), tmp_path) as session:
        exam = session.examiner._exam(session.plan.tasks[0])
        split = exam.corpus.validation
        assert split is not None

        def labels(rank: int, ranks: int, most: int | None = None) -> list[int]:
            part = replace(exam, world=World(exam.world.device, rank, ranks))
            return [
                int(label) for batch in part.batches(split, most) for label in batch.labels[batch.labels >= 0]
            ]

        whole = labels(0, 1)
        assert sorted(whole) == sorted(np.concatenate([split.sample(i).labels for i in range(len(split))]))
        assert sorted(labels(0, 2) + labels(1, 2)) == sorted(whole)
        assert 0 < len(labels(0, 1, 2)) < len(whole)

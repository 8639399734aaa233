"""Success criteria: each figure by arithmetic, from the records."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.errors import RecipeError
from etude.recipe.schema import Criterion, Recipe
from etude.records.events import Evaluation, Judgement, Scores, Step
from etude.report.criteria import criteria_text
from etude.report.history import read_history
from etude.report.write import write_report
from etude.run import Training, run_recipe
from etude.start import Options
from etude.watch.criteria import Criteria


def step(number: int, loss: float) -> Step:
    return Step(number, 0, loss, 1.0, 1e-3, targets=10, samples=1, seconds=0.1, wait_seconds=0.0)


def evaluation(number: int, loss: float, **metrics: float) -> Evaluation:
    return Evaluation(number, loss, math.exp(loss), None, 10, 0.1, False, metrics)


def judge(
    criteria: list[Criterion], losses: list[float], last: Evaluation | Scores, steps: int = 40
) -> Judgement:
    fold = Criteria(criteria, steps, 2)
    for number, loss in enumerate(losses, 1):
        assert fold.observe(step(number, loss)) is None
    judgement = fold.observe(last)
    assert judgement is not None
    return judgement


def test_figures_are_those_of_the_records() -> None:
    losses = [4.0] * 10 + [3.0] * 10 + [1.0] * 10
    criteria = [
        Criterion(figure="gap", below=0.5), Criterion(figure="progress", above=0.7),
        Criterion(figure="steepest_fall", below=0.4), Criterion(figure="f1", above=0.5),
        Criterion(figure="loss", below=1.0), Criterion(figure="nothing", above=0.0), Criterion(figure="test:f1", above=0.0),
    ]  # fmt: skip
    judged = judge(criteria, losses, evaluation(30, 1.4, f1=0.5))
    assert judged.values == pytest.approx({
        "gap below 0.5": 0.4, "progress above 0.7": 0.75, "steepest_fall below 0.4": 0.5, "f1 above 0.5": 0.5,
        "loss below 1": 1.4, "nothing above 0": None, "test:f1 above 0": None,
    })  # fmt: skip
    assert judged.met == ["gap below 0.5", "progress above 0.7"]


def test_scores_of_the_test_rows_count_and_those_of_validation_do_not() -> None:
    criteria = [Criterion(figure="test:f1", above=0.5)]
    scores = Scores(30, 5, "test", "f1", {"after": {"f1": [0.8, 0.7, 0.9]}}, {})
    assert judge(criteria, [1.0], scores).met == ["test:f1 above 0.5"]
    other = Scores(30, 5, "validation", "f1", {"after": {"f1": [0.8, 0.7, 0.9]}}, {})
    assert judge(criteria, [1.0], other).values == {"test:f1 above 0.5": None}


def test_what_is_not_finite_is_not_met() -> None:
    criteria = [Criterion(figure="loss", above=0.0), Criterion(figure="gap", below=9.0)]
    assert judge(criteria, [math.nan] * 30, evaluation(30, math.inf)).met == []


def test_before_training_nothing_is_judged() -> None:
    assert Criteria([Criterion(figure="loss", above=0.0)], 10, 1).observe(evaluation(0, 1.0)) is None


def test_a_run_judges_at_every_evaluation_and_reports_it(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    criteria: list[dict[str, Any]] = [{"figure": "gap", "below": 5.0}, {"figure": "progress", "above": 0.9}]
    run = run_recipe(make_recipe({"criteria": criteria}), Options(runs=tmp_path)).run
    history = read_history(run)
    assert [(each.step, each.met) for each in history.events(Judgement)] == [
        (6, ["gap below 5"]), (12, ["gap below 5", "progress above 0.9"]),
    ]  # fmt: skip
    assert criteria_text(history) == "2 of 2 met"
    report = write_report(run).read_text()
    assert "## Success criteria" in report and "| progress above 0.9 | 0.500 | 1.00 | yes |" in report
    assert history.events(Judgement)[0].open == ["progress above 0.9"]
    log = (run.path / "log.txt").read_text()
    assert "criteria: 1 of 2 met; open: progress above 0.9 (0.5)" in log


def test_progress_is_open_until_a_run_ends(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    criteria = [{"figure": "progress", "above": 0.9}, {"figure": "gap", "below": 5.0}]
    training = Training(make_recipe({"criteria": criteria}), Options(runs=tmp_path))
    for step in training:
        if step.number == 7:
            break
    assert criteria_text(read_history(training.run)) == "1 of 2 met; open: progress above 0.9 (0.5)"
    early = {"criteria": criteria, "evaluate.patience": 1, "optim.learning_rate": 1.0}
    short = make_recipe(early | {"evaluate.every_steps": 2, "train.steps": 40, "schedule.warmup_steps": 0})
    run = run_recipe(short, Options(runs=tmp_path / "early")).run
    assert "not progress above 0.9 (0" in str(criteria_text(read_history(run)))
    assert "| **0." in write_report(run).read_text().partition("| progress above 0.9 |")[2].splitlines()[0]


def test_a_criterion_has_one_limit(make_recipe: Callable[..., Recipe]) -> None:
    for limits in ({}, {"above": 1.0, "below": 2.0}):
        with pytest.raises(RecipeError, match="needs above or below, and not both"):
            make_recipe({"criteria": [{"figure": "gap", **limits}]})
    with pytest.raises(RecipeError, match="stands there twice"):
        make_recipe({"criteria": 2 * [{"figure": "gap", "below": 1.0}]})


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        ([{"figure": "gap", "below": 0.5}, {"figure": "gap", "above": 0.5}], "leaves nothing"),
        ([{"figure": "gap", "above": 2}, {"figure": "gap", "below": 0.5}], "leaves nothing"),
        ([{"figure": "test: ", "below": 0.5}], "no name of a figure"),
        ([{"figure": "", "below": 0.5}], "no name of a figure"),
        ([{"figure": "\x1b[31m", "below": 0.5}], "no name of a figure"),
        (
            [{"figure": f"f{number}", "below": 0.5} for number in range(10_000)],
            "has 10,000 of them; at most 100",
        ),
    ],
)
def test_criteria_that_cannot_be_judged_are_refused(
    criteria: list[dict[str, object]], says: str, make_recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(RecipeError, match=says):
        make_recipe({"criteria": criteria})
    between = [{"figure": "gap", "above": 0.1}, {"figure": "gap", "below": 0.5}]
    assert len(make_recipe({"criteria": between}).criteria) == 2

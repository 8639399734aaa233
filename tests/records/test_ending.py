"""The end of an attempt."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.store import list_runs
from etude.report.summary import describe, run_table, summarize
from etude.run import Training, run_recipe
from etude.start import Options


def test_only_a_run_that_stopped_goes_on_by_the_same_command() -> None:
    states = ("finished", "stopped", "failed")
    assert [Ending(state).is_resumable for state in states] == [False, True, False]


def test_a_run_that_is_left_goes_on_and_one_that_is_done_does_not(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    states = []
    for most in (5, 100):
        training = Training(make_recipe(), Options(runs=tmp_path))
        for step in training:
            if step.number == most:
                break
        states.append(training.run.state)
    assert states == ["stopped", "finished"]


def test_a_run_that_patience_ends_is_finished_early_and_nothing_is_left_to_resume(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    changes = {"evaluate.every_steps": 2, "evaluate.patience": 2, "evaluate.min_improvement": 100.0}
    training = run_recipe(make_recipe({"train.steps": 40, **changes}), Options(runs=tmp_path))
    summary, reason = summarize(training.run), "no improvement in 2 evaluations"
    assert (summary["status"], summary["reason"]) == ("finished", reason) and summary["step"] < 40
    assert dict(describe(summary))["status"] == f"ended early: {reason}"
    assert run_table([summary])[1][1] == "ended early" and not training.run.is_unfinished
    assert "resume" not in summary["end"]


def test_a_run_that_an_error_ends_says_which(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    measured: list[int] = []

    def lucky_twice(model: object, batches: Iterable[object]) -> float:
        measured.append(1)
        if len(measured) > 2:
            raise RuntimeError("out of\nluck")
        return 1.0

    options = Options(runs=tmp_path, metrics={"mine": lucky_twice})
    with pytest.raises(InputError, match=r"your metric mine lucky_twice failed at .*out of luck"):
        run_recipe(make_recipe({"train.steps": 40, "evaluate.every_steps": 2}), options)
    (run,) = list_runs(tmp_path)
    summary = summarize(run)
    assert summary["status"] == "failed" and "out of luck" in summary["reason"]
    assert dict(describe(summary))["status"] == f"failed: {summary['reason']}"
    assert summary["end"].startswith(f"Failed at step 4 of 40: {summary['reason']}")


def test_patience_ends_a_run_at_the_same_step_however_often_it_was_left(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    changes = {"evaluate.every_steps": 2, "evaluate.patience": 2, "evaluate.min_improvement": 0.3}
    recipe = make_recipe({"train.steps": 40, "checkpoint.every_steps": 1, **changes})
    whole = summarize(run_recipe(recipe, Options(runs=tmp_path / "whole")).run)
    assert whole["reason"] == "no improvement in 2 evaluations" and whole["step"] > 6
    for most in (3, 5):
        while True:
            training = Training(recipe, Options(runs=tmp_path / str(most)))
            for number, _ in enumerate(training, 1):
                if number == most:
                    break
            if not training.run.is_unfinished:
                break
        left = summarize(training.run)
        assert (left["step"], left["reason"]) == (whole["step"], whole["reason"])

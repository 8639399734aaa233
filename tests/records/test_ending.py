"""The end of an attempt."""

from collections.abc import Callable
from pathlib import Path

from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.run import Training
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

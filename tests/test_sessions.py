"""Runs that outlive their sessions: by a limit of time, and by a mirror of their folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Evaluation, Scores
from etude.records.store import list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_labelled
from tests.recipes import classification

MakeRecipe = Callable[..., Recipe]


def final_bits(runs: Path) -> bytes:
    (run,) = list_runs(runs)
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    return b"".join((last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors"))


def train_on(recipe: Recipe, runs: Path, sessions: int = 20) -> list[str]:
    """Train in session after session until the run is finished; the states that they end in."""
    states: list[str] = []
    while "finished" not in states and len(states) < sessions:
        states.append(run_recipe(recipe, Options(runs=runs)).ending.state)
    return states


def test_sessions_that_are_over_at_once_make_a_step_each_and_the_bits_of_one(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_recipe({"train.steps": 4, "evaluate.every_steps": 2})
    assert train_on(whole, tmp_path / "one") == ["finished"]
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    limited = make_recipe({"train.steps": 4, "evaluate.every_steps": 2, "run.session_limit": "1s"})
    assert train_on(limited, tmp_path / "many") == ["paused"] * 4 + ["finished"]
    (one,), (many,) = list_runs(tmp_path / "one"), list_runs(tmp_path / "many")
    assert final_bits(tmp_path / "one") == final_bits(tmp_path / "many")
    assert one.best == many.best
    found = [
        [
            (each.event.step, each.event.loss)
            for each in run.ledger().entries
            if isinstance(each.event, Evaluation)
        ]
        for run in (one, many)
    ]
    assert found[0] == found[1]  # those that a session had no time for are made up


def test_scores_for_which_a_session_has_no_time_are_made_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = classification(
        write_labelled(tmp_path / "rows.jsonl"), changes={"train.steps": 2, "evaluate.every_steps": 2}
    )
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    assert train_on(recipe, tmp_path / "runs") == ["paused", "paused", "finished"]
    (run,) = list_runs(tmp_path / "runs")
    attempts = [each.attempt for each in run.ledger().entries if isinstance(each.event, Scores)]
    assert attempts == [3]


def test_a_run_goes_on_under_another_limit_and_keeps_its_first(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_recipe({"train.steps": 2, "run.session_limit": "1s"})
    assert run_recipe(first, Options(runs=tmp_path)).ending.state == "paused"
    other = make_recipe({"train.steps": 2, "run.session_limit": "9d"})
    assert run_recipe(other, Options(runs=tmp_path)).ending.state == "finished"
    (run,) = list_runs(tmp_path)
    assert run.recipe.run.session_limit == "1s"
    attempts = [each.event for each in run.ledger().entries if isinstance(each.event, Attempt)]
    assert [each.environment["run"]["session_limit"] for each in attempts] == ["1s", "9d"]

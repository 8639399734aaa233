"""The pace of a run on other rows or steps follows from its records by counting."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import CheckpointSaved
from etude.report.history import read_history
from etude.report.projection import project
from etude.run import run_recipe
from etude.start import Options
from tests import bases, recipes

Make = Callable[..., Recipe]


def test_rows_and_steps_are_counted_as_the_recipe_counts_them(tmp_path: Path) -> None:
    changes = {"train.epochs": 2, "evaluate": {"every_epochs": 1}}
    recipe = recipes.classification(bases.write_labelled(tmp_path / "rows.jsonl", 60), None)
    values = recipe.to_dict()
    del values["train"]["steps"]
    values["train"]["epochs"], values["evaluate"] = changes["train.epochs"], changes["evaluate"]
    from etude.recipe.load import recipe_from

    run = run_recipe(recipe_from(values), Options(runs=tmp_path / "runs")).run
    history = read_history(run)
    same = project(history)
    assert same.steps == len(history.steps) and same.evaluations == len(history.evaluations)
    made = project(history, rows=1000)
    assert made.steps_per_epoch == 125 and made.steps == 250 and made.evaluations == 1 + 2
    usual = [step.seconds for step in history.steps[1:]]
    assert made.step_seconds == pytest.approx(sum(usual) / len(usual))
    waited = sum(save.blocking_seconds for save in history.events(CheckpointSaved)) / len(history.steps)
    assert made.checkpoint_seconds == pytest.approx(250 * waited)
    parts = 250 * made.step_seconds + made.evaluation_seconds + made.checkpoint_seconds + made.beside_seconds
    assert made.seconds == pytest.approx(parts, abs=1e-3)
    assert made.interval[0] < made.seconds < made.interval[1]
    tokens = sum(step.tokens or 0 for step in history.steps)
    assert made.tokens == round(tokens * 250 / len(history.steps))
    assert all(name and text for name, text in made.table()) and made.values()["rows"] == 1000


def test_what_has_no_pace_is_refused(make_recipe: Make, tmp_path: Path) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    assert project(read_history(run), steps=120).steps == 120
    with pytest.raises(InputError, match="give --steps N"):
        project(read_history(run), rows=1000)
    journal = run.path / "journal.jsonl"
    journal.write_text(
        "".join(line for line in journal.read_text().splitlines(True) if '"step","' not in line)
    )
    kept = [
        line for line in journal.read_text().splitlines(True) if '"type":"step"' not in line.replace(" ", "")
    ]
    journal.write_text("".join(kept))
    with pytest.raises(InputError, match="0 steps, which is no pace"):
        project(read_history(run))

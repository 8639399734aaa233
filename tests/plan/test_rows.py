"""The rows that a person reads of a plan agree with the plan."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.plan import make_plan
from etude.plan.rows import plan_rows, short_rows
from etude.recipe.schema import Recipe
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests import bases, recipes

Make = Callable[..., Recipe]


def test_rows_name_samples_parameters_and_steps(make_recipe: Make) -> None:
    plan = make_plan(make_recipe())
    rows = dict(plan_rows(plan))
    held_out = plan.corpus.validation
    assert held_out is not None
    assert rows["data"] == (
        f"{len(plan.train)} samples, {plan.train.spans.targets:,} targets; "
        f"validation {len(held_out)} samples, {held_out.spans.targets:,} targets"
    )
    assert rows["model"] == f"a new decoder, {plan.parameters['total']:,} parameters"
    assert rows["steps"].startswith(f"12 steps of 8 samples, {plan.steps_per_epoch} steps an epoch, ")
    assert rows["device"] == f"cpu, fp32, micro-batches of {plan.micro_batch_size}"
    assert rows["best"] == "by validation loss, lower is better"


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_the_targets_of_the_plan_are_those_of_the_steps(kind: str, tmp_path: Path) -> None:
    changes = {"train.steps": None, "train.epochs": 2, "train.global_batch_size": 7}
    changes["train.micro_batch_size"] = 7
    if kind == "seq2seq":
        recipe = recipes.seq2seq(bases.write_pairs(tmp_path / "rows.jsonl", 40), None, changes)
    else:
        rows = bases.write_instructions(tmp_path / "rows.jsonl", 40)
        recipe = recipes.finetuning(rows, bases.write_qwen2(tmp_path / "base"), changes)
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    targets = sum(step.targets for step in read_history(run).steps)
    assert f", {targets:,} targets" in dict(plan_rows(make_plan(recipe)))["steps"]


def test_a_run_begins_with_five_rows_that_name_where_the_others_are(tmp_path: Path) -> None:
    base = bases.write_encoder(tmp_path / "base")
    recipe = recipes.classification(bases.write_labelled(tmp_path / "rows.jsonl", 60), base)
    plan = make_plan(recipe)
    rows = dict(short_rows(plan))
    assert list(rows) == ["model", "data", "steps", "best", "device"] and len(plan_rows(plan)) <= 8
    assert rows["data"].endswith("; notes on it: etude check --deep")
    assert rows["model"].endswith("; trained with the encoder of etude")
    assert rows["best"] == "by f1, higher is better"


def test_one_is_no_plural(make_recipe: Make) -> None:
    changes = {"train.global_batch_size": 1, "train.micro_batch_size": 1}
    rows = dict(plan_rows(make_plan(make_recipe(changes))))
    assert rows["steps"].startswith("12 steps of 1 sample, ") and "rank" not in rows["device"]


def test_a_plan_without_validation_says_so(make_recipe: Make) -> None:
    rows = dict(plan_rows(make_plan(make_recipe({"data.validation": "none"}))))
    assert rows["data"].endswith("; validation none") and rows["best"].endswith("the last is kept")

"""The rows that a person reads of a plan agree with the plan."""

from collections.abc import Callable

from etude.plan import make_plan
from etude.plan.rows import plan_rows
from etude.recipe.schema import Recipe


def test_rows_name_samples_parameters_and_computation(make_recipe: Callable[..., Recipe]) -> None:
    plan = make_plan(make_recipe())
    rows = dict(plan_rows(plan))
    assert rows["training data"] == f"{len(plan.train)} samples, {plan.train.spans.targets:,} targets"
    assert rows["parameters"].startswith(f"{plan.parameters['total']:,} (")
    assert rows["steps"].startswith("12 of 8 samples")
    tokens = 12 * 8 * plan.train.tokens_per_sample
    assert rows["tokens"].startswith(f"{round(tokens):,} in all")
    assert rows["checkpoint"] == f"{12 * plan.parameters['total'] / 1e6:.1f} MB each"  # weights, two moments
    assert "model" not in rows and rows["micro-batch"] == f"{plan.micro_batch_size} samples"


def test_one_is_no_plural(make_recipe: Callable[..., Recipe]) -> None:
    changes = {"train.global_batch_size": 1, "train.micro_batch_size": 1}
    rows = dict(plan_rows(make_plan(make_recipe(changes))))
    assert rows["steps"].startswith("12 of 1 sample;") and rows["micro-batch"] == "1 sample"
    assert rows["device"].endswith(", 1 rank")


def test_a_plan_without_validation_says_so(make_recipe: Callable[..., Recipe]) -> None:
    rows = dict(plan_rows(make_plan(make_recipe({"data.validation": "none"}))))
    assert rows["validation data"] == "none" and "best checkpoint" not in rows

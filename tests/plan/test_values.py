"""Values of a plan, against what the run of it records."""

import json
from collections.abc import Callable
from pathlib import Path

from etude.plan import make_plan
from etude.plan.values import plan_values
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Step
from etude.run import run_recipe
from etude.start import Options


def test_the_values_of_a_plan_are_those_of_its_run(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({"train.steps": None, "train.epochs": 1})
    values = plan_values(make_plan(recipe))
    assert json.loads(json.dumps(values)) == values
    events = [entry.event for entry in run_recipe(recipe, Options(runs=tmp_path)).run.ledger().entries]
    steps = [event for event in events if isinstance(event, Step)]
    (attempt,) = [event for event in events if isinstance(event, Attempt)]
    assert (values["steps"], values["epochs"]) == (len(steps), 1.0)
    assert values["train_samples"] == sum(step.samples for step in steps)
    assert values["targets"] == values["train_targets"] == sum(step.targets for step in steps)
    assert values["tokens"] == sum(step.tokens or 0 for step in steps)
    assert (values["parameters"], values["trainable"]) == (attempt.parameters, attempt.trainable)
    of_model = attempt.flops_per_token * values["tokens"] + attempt.flops_per_target * values["targets"]
    assert abs(values["operations"] / of_model - 1) < 1e-9

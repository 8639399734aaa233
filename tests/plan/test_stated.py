"""Figures that a recipe states are held against those that follow from it."""

from collections.abc import Callable

from etude.plan import make_plan
from etude.plan.stated import find_disagreements
from etude.plan.values import plan_values
from etude.recipe.schema import Recipe

Make = Callable[..., Recipe]


def test_stated_figures_that_follow_are_passed_over_and_others_named(make_recipe: Make) -> None:
    plan = make_plan(make_recipe())
    true = {
        "parameters": plan.parameters["total"],
        "steps": plan.steps,
        "tokens": plan_values(plan)["tokens"],
    }
    assert not find_disagreements(plan)
    near = {"parameters": round(1.04 * true["parameters"]), "tokens": round(0.96 * true["tokens"])}
    assert not find_disagreements(make_plan(make_recipe({"stated": true | near})))
    said = find_disagreements(make_plan(make_recipe({"stated": {"steps": 13, "tokens": 2 * true["tokens"]}})))
    assert said == [
        "stated.steps is 13, but batches, epochs and data give 12",
        f"stated.tokens is {2 * true['tokens']:,}, but all steps read {true['tokens']:,}",
    ]

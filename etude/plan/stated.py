"""Figures that a recipe states of itself, held against those that follow from it."""

from etude.plan import Plan
from etude.plan.values import plan_values

_NEAR = 0.05  # stated figures are rounded: 300M for 303,171,584


def find_disagreements(plan: Plan) -> list[str]:
    """Sentences on the stated figures that do not follow from the recipe, its data and its model."""
    stated, values = plan.recipe.stated, plan_values(plan)
    if stated is None:
        return []
    total = plan.parameters["total"]
    known = {
        "parameters": (total, total * _NEAR, "the model has {:,}"),
        "trainable": (plan.trainable, plan.trainable * _NEAR, "{:,} parameters are trained"),
        "steps": (plan.steps, 0, "batches, epochs and data give {:,}"),
        "tokens": (values["tokens"], values["tokens"] * _NEAR, "all steps read {:,}"),
    }
    said = []
    for name, (true, slack, words) in known.items():
        given = getattr(stated, name)
        if given is not None and abs(given - true) > slack:
            said.append(f"stated.{name} is {given:,}, but {words.format(true)}")
    return said

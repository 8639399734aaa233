"""Settings of a recipe that mean something for its run, as people are shown them."""

import re
from typing import Any

from etude.recipe.keys import recipe_keys
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.load import flatten
from etude.recipe.schema import Loss, Recipe

_TEXT_KEYS = ("answers", "answer_tokens", "prompts", "sample_tokens", "temperature")


def shown_settings(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe by dotted key, but defaults that have no meaning beside its other values."""
    idle = _idle_keys(recipe)
    values = flatten(recipe.to_dict())
    return {key: value for key, value in values.items() if not (key in idle and is_default(key, value))}


def is_default(key: str, value: Any) -> bool:
    """True if a key without that value would have it."""
    field = recipe_keys().get(re.sub(r"\.\d+(?=\.|$)", ".0", key))
    return field is not None and field.default == value


def _idle_keys(recipe: Recipe) -> set[str]:
    """Keys of other models, kinds of training, optimizers and schedules than those of the recipe."""
    kinds = [part.kind for part in recipe.by_task().values()]
    others = [kind for kind in TRAINING_KINDS.values() if kind not in kinds]
    idle = {f"train.{name}" for kind in others for name in kind.train_keys}
    if recipe.model.from_ is not None:
        idle.add("model.kind")
    if recipe.optim.kind != "muon":
        idle |= {"optim.momentum", "optim.matrix_rate_ratio"}
    if recipe.schedule.kind != "wsd":
        idle.add("schedule.decay_ratio")
    if not any(kind.writes_text for kind in kinds):
        idle |= {f"evaluate.{name}" for name in _TEXT_KEYS}
    used = {name for kind in kinds for name in kind.loss_keys}
    return idle | {f"loss.{name}" for name in Loss.model_fields if name not in used}

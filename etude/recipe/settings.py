"""Settings of a recipe that mean something for its run, as people are shown them."""

import json
import re
from typing import Any

from etude.recipe.keys import recipe_keys
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.load import flatten
from etude.recipe.schema import Loss, Recipe
from etude.recipe.toml import toml_text

_NEED = re.compile(r"(no )?(\S+)(?: (=|!=|>|in|has) (.+))?")


def shown_settings(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe by dotted key, but defaults that have no meaning beside its other values."""
    idle = _keys_of_other_kinds(recipe) | find_idle(recipe).keys()
    values = flatten(recipe.to_dict())
    return {key: value for key, value in values.items() if not (key in idle and is_default(key, value))}


def is_default(key: str, value: Any) -> bool:
    """True if a key without that value would have it."""
    field = recipe_keys().get(_first_of_list(key))
    return field is not None and field.default == value


def find_idle(recipe: Recipe) -> dict[str, str]:
    """The keys that nothing reads beside the other values of a recipe, and what each needs for that.

    A key declares its needs where it stands in the schema.
    """
    values = flatten(recipe.to_dict())
    values["train.objective"] = [part.train.objective for part in recipe.by_task().values()]
    found = {}
    for key in values:
        field = recipe_keys().get(_first_of_list(key))
        extra = field.json_schema_extra if field is not None else None
        needs: Any = extra.get("needs", ()) if isinstance(extra, dict) else ()
        if unmet := next((need for need in needs if not _is_met(need, key, values)), None):
            found[key] = unmet
    return found


def describe_idle(recipe: Recipe) -> list[str]:
    """A sentence on each value that is no default and that nothing reads."""
    values = flatten(recipe.to_dict())
    return [
        f"{key} is {toml_text(values[key])}, which has no effect here: it is for {need}"
        for key, need in find_idle(recipe).items()
        if not is_default(key, values[key])
    ]


def _is_met(need: str, key: str, values: dict[str, Any]) -> bool:
    """True if the values of a recipe are as a key needs them; names without a dot are of its own section."""
    found = _NEED.fullmatch(need)
    assert found is not None, need
    no, name, sign, text = found.groups()
    if "." not in name:
        name = f"{key.rpartition('.')[0]}.{name}"
    is_section = any(each.startswith(f"{name}.") for each in values)
    held: Any = values.get(name, is_section)
    wanted: Any = json.loads(text) if text else None
    match sign:
        case "=":
            return bool(held == wanted)
        case "!=":
            return bool(held != wanted)
        case ">":
            return bool(held > wanted)
        case "in":
            return any(each in wanted for each in held)
        case "has":
            return wanted in held
    return bool(held) != bool(no)


def _first_of_list(key: str) -> str:
    """The name under which the schema has a key, of the first of a list."""
    return re.sub(r"\.\d+(?=\.|$)", ".0", key)


def _keys_of_other_kinds(recipe: Recipe) -> set[str]:
    """Keys of other kinds of training than those of the recipe; given, they are refused."""
    kinds = [part.kind for part in recipe.by_task().values()]
    used = {name for kind in kinds for name in kind.loss_keys}
    others = [kind for kind in TRAINING_KINDS.values() if kind not in kinds]
    idle = {f"train.{name}" for kind in others for name in kind.train_keys}
    return idle | {f"loss.{name}" for name in Loss.model_fields if name not in used}

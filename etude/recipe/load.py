"""From a TOML file and overrides to a checked recipe; every problem at once, each with its line."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from etude.durable import check_name, read_bytes, why_not_utf8
from etude.errors import InputError, RecipeError
from etude.recipe.life import BESIDE
from etude.recipe.problems import describe, group_by_keys
from etude.recipe.rules import find_conflicts
from etude.recipe.schema import Recipe
from etude.recipe.section import is_address
from etude.recipe.toml import Locator, dump, parse, parse_override
from etude.text import shorten

_MAX_BYTES = 1 << 20
_MOST_PROBLEMS = 100
# Keys that came when there were runs already, with the value by which those were computed.
_LATER = {"optim.matrix_rate_ratio": 1.0, "train.share_prefixes": "auto"}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply overrides (`optim.learning_rate=2e-4`), check it; relative paths become
    absolute.

    Raises: InputError if there is no such file; RecipeError with every problem of its content.
    """
    check_name(path)
    path = Path(path)
    given = dict(parse_override(override) for override in overrides)
    return parse_recipe(read_recipe_text(path), path.name, path.resolve().parent, given)


def parse_recipe(
    text: str, name: str, folder: Path, given: Mapping[str, Any] = MappingProxyType({})
) -> Recipe:
    """Check the text of a recipe of this name, and others values than it has by dotted key.

    folder: that its relative paths begin in. Raises: RecipeError with every problem.
    """
    values = change(parse(text, name), dict(given))
    if "tiers" in values and "data" not in values:
        raise RecipeError([f"{name} is a sweep, not a recipe; give it to etude sweep plan or run"])
    return absolute(recipe_from(values, Locator(text, name, dict(given))), folder)


def read_recipe_text(path: Path) -> str:
    """The text of a recipe file. Raises: InputError if it cannot be read as one."""
    if not path.is_file():
        what = "is not a plain file" if path.exists() else "does not exist"
        what = "is a folder" if path.is_dir() else what
        raise InputError(f"recipe {path} {what}; give the path of a .toml file, or try `etude demo`")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"recipe {path} has over 1 MiB; a recipe is a short TOML file")
    content = read_bytes(path, most_bytes=_MAX_BYTES)
    if why := why_not_utf8(content):
        raise InputError(f"recipe {path} is not UTF-8 text: {why}; save it as UTF-8")
    return content.decode("utf-8-sig")


def absolute(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its relative paths as those of a folder.

    Raises: InputError if one of them is no UTF-8 then, and so could stand in no recipe.
    """

    def resolve(text: str | None) -> str | None:
        if text is None:
            return None
        path = str((folder / at_home(text)).absolute())
        if path != os.fsencode(path).decode("utf-8", "replace"):
            shown = os.fsencode(folder).decode("utf-8", "replace")
            raise InputError(f"the folder {shown} has a name that is not UTF-8; give it another")
        return path

    values = recipe.model_dump(by_alias=True, exclude_unset=True)  # so it stays known what somebody set
    data, tokenizer, model = values["data"], values.get("tokenizer", {}), values.get("model", {})
    sources = [*data["train"], *data.get("test", [])]
    sources += data["validation"] if isinstance(data.get("validation"), list) else []
    for source in sources:
        source["path"] = resolve(source.get("path"))
    if benchmarks := data.get("leakage", {}).get("benchmarks"):
        data["leakage"]["benchmarks"] = [resolve(path) for path in benchmarks]
    if execute := (values.get("evaluate") or {}).get("execute"):
        execute["path"] = resolve(execute["path"])
    if "from" in tokenizer:
        tokenizer["from"] = resolve(tokenizer["from"])
    life = values.get("run", {})
    if "mirror" in life and not is_address(life["mirror"]):
        life["mirror"] = resolve(life["mirror"])
    if _is_folder(model.get("from"), folder):
        model["from"] = resolve(model["from"])
    return Recipe.model_validate(values)


def recipe_from(data: dict[str, Any], locator: Locator | None = None) -> Recipe:
    """Check plain values against the schema and the rules. Raises: RecipeError with every problem."""
    locator = locator or Locator("", "recipe", {})
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        found = group_by_keys(error.errors(include_url=False), data)
        described = [describe(keys, found[keys], locator) for keys in list(found)[:_MOST_PROBLEMS]]
        more = len(found) - len(described)
        raise RecipeError(
            [*described, *([f"{locator.file} has {more:,} more problems"] if more else [])]
        ) from None
    except RecursionError:
        raise RecipeError(
            [f"{locator.file}: values are nested too deeply; a recipe has three levels"]
        ) from None
    if conflicts := find_conflicts(recipe):
        raise RecipeError([locator.problem(tuple(keys.split(".")), text) for keys, text in conflicts])
    return recipe


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The same recipe with dotted keys set to other values, checked again. Raises: RecipeError."""
    return recipe_from(change(recipe.to_dict(), changes))


def change(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested values with dotted keys replaced; numbers index lists (`data.train.0.path`).

    Raises: RecipeError if a key leads through something that is no section.
    """
    data = copy.deepcopy(data)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place: Any = data
        for depth, part in enumerate(parents):
            if isinstance(place, list):
                place = place[_index(place, part, dotted)]
            else:
                place = place.setdefault(part, {})
            if not isinstance(place, dict | list):
                what = shorten(".".join(parents[: depth + 1]), 80)
                raise RecipeError([f"{shorten(dotted, 80)}: {what} is a value, not a section"])
        place[_index(place, last, dotted) if isinstance(place, list) else last] = value
    return dict(data)


def _index(values: list[Any], part: str, dotted: str) -> int:
    """The number that a part of a dotted key is. Raises: RecipeError if the list has no such entry."""
    if not (part.isdecimal() and len(part) < 9 and int(part) < len(values)):
        raise RecipeError(
            [f"{shorten(dotted, 80)}: there is no number {shorten(part, 20)} in a list of {len(values)}"]
        )
    return int(part)


def at_home(path: str) -> Path:
    """A path with the folder that `~` or `~user` stands for. Raises: InputError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: this machine has no home of such a user; give the whole path") from None


def recipe_hash(recipe: Recipe) -> str:
    """A hash (hex) equal for recipes that compute the same, whatever the order and comments of a file.

    It stays when etude gets a new key, so that a run or a sweep of before is found again and goes on.
    """
    return values_hash(recipe.to_dict())


def values_hash(values: dict[str, Any]) -> str:
    """The same hash of the plain values of a recipe, as its TOML file holds them."""
    values = {name: value for name, value in values.items() if name not in BESIDE}
    if isinstance(train := values.get("train"), dict):  # the ranks do not change what is computed
        train = {name: value for name, value in train.items() if name != "parallel"}
        alike = {"devices": 1} if train.get("global_batch_size") is not None and "devices" in train else {}
        values["train"] = train | alike
    for name, default in _LATER.items():
        section, _, own = name.rpartition(".")
        if isinstance(found := values.get(section), dict) and found.get(own) == default:
            values[section] = {each: value for each, value in found.items() if each != own}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def diff(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values; None where a key is not set."""
    left, right = flatten(before.to_dict()), flatten(after.to_dict())
    keys = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in keys if left.get(name) != right.get(name)}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists of them as one dictionary with dotted keys."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    return {
        name: leaf
        for part, child in items
        for name, leaf in flatten(child, f"{prefix}.{part}".strip(".")).items()
    }


def to_toml(recipe: Recipe) -> str:
    """A recipe as TOML, defaults included."""
    return dump(recipe.to_dict())


def _is_folder(model: str | None, folder: Path) -> bool:
    """True if model.from is meant as a path; anything else is the id of a model on a hub."""
    if model is None or "\0" in model:
        return False
    return model.startswith((".", "/", "~")) or (folder / model).is_dir()

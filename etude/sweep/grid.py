"""From a sweep file to its trials: each point of each grid as a checked recipe, or every problem at once."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from etude.durable import check_name
from etude.errors import InputError, RecipeError
from etude.recipe.load import absolute, change, diff, flatten, read_recipe_text, recipe_from, values_hash
from etude.recipe.problems import describe, group_by_keys
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator, parse, toml_text
from etude.sweep.schema import Axis, SweepFile, SweepModel, Tier
from etude.text import plural, shorten

MOST_TRIALS = 10_000
_MOST_PROBLEMS = 20
_LONGEST_NAME = 57  # of a run without its id
_SHORT = {
    "learning_rate": "lr", "global_batch_size": "batch", "micro_batch_size": "micro", "weight_decay": "decay",
    "accumulation": "accum", "warmup_steps": "warmup", "dropout": "drop", "kind": "",
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A point of a grid: a recipe that is trained once.

    values  by key of the grid
    """

    name: str
    tier: str
    model: str
    priority: int
    values: Mapping[str, Any]
    recipe: Recipe = field(repr=False)


@dataclass(frozen=True)
class Sweep:
    """A sweep file and its trials. `text`: of the file; `base_text`: of the file of its base."""

    file: SweepFile
    trials: tuple[Trial, ...]
    text: str
    base_text: str


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file and make its trials.

    Raises: InputError if there is no such file; RecipeError with every problem, and with the number of trials
    if there are too many, before any is made.
    """
    check_name(path)
    text = read_recipe_text(path)
    data = parse(text, path.name)
    locator = Locator(text, path.name, {})
    file = _validate(data, locator)
    count = _require_few(file, locator)
    base = _read_base(file, path, data, locator)
    trials: list[Trial] = []
    problems: dict[str, None] = {}
    for tier_place, tier in enumerate(file.tiers):
        for model_place, model in enumerate(tier.models):
            places = (f"tiers.{tier_place}", f"tiers.{tier_place}.models.{model_place}")
            for values, given in _points(tier, model, places, locator):
                try:
                    trials.append(_make(base, tier, model, values, given))
                except RecipeError as error:
                    problems |= dict.fromkeys(error.problems)
            if len(problems) >= _MOST_PROBLEMS:
                break
    problems |= dict.fromkeys(_find_twins(trials))
    if problems:
        raise RecipeError(list(problems)[:_MOST_PROBLEMS])
    assert len(trials) == count
    return Sweep(file, tuple(trials), text, base.text)


def count_trials(file: SweepFile) -> int:
    """The number of trials, by arithmetic."""
    return sum(
        prod(len(axis.values) for axis in axes_of(tier, model))
        for tier in file.tiers
        for model in tier.models
    )


def axes_of(tier: Tier, model: SweepModel) -> list[Axis]:
    """The grids of a model: those of its tier, but where it has one of the same keys, and its own."""
    own = {key for axis in model.grid for key in axis.keys}
    return [*(axis for axis in tier.grid if not own.intersection(axis.keys)), *model.grid]


@dataclass(frozen=True)
class _Base:
    """The base recipe as plain values, its file for messages, and the folder that its paths begin in."""

    values: dict[str, Any]
    locator: Locator
    folder: Path
    text: str = ""


def _validate(data: dict[str, Any], locator: Locator) -> SweepFile:
    try:
        return SweepFile.model_validate(data)
    except ValidationError as error:
        found = group_by_keys(error.errors(include_url=False), data)
        raise RecipeError([
            describe(keys, found[keys], locator, SweepFile) for keys in list(found)[:_MOST_PROBLEMS]
        ]) from None  # fmt: skip
    except RecursionError:
        raise RecipeError([f"{locator.file}: values are nested too deeply; a sweep has few levels"]) from None


def _require_few(file: SweepFile, locator: Locator) -> int:
    """The number of trials. Raises: RecipeError if they are too many, or names or values stand twice."""
    count, problems = count_trials(file), []
    if count > MOST_TRIALS:
        most = f"a sweep has at most {MOST_TRIALS:,}"
        raise RecipeError(
            [f"{locator.file} describes {count:,} trials; {most}; take values out of its grids"]
        )
    if file.budget.trials is not None and count > file.budget.trials:
        name = locator.name(("budget", "trials"))
        problems.append(
            f"{name} is {file.budget.trials:,}, but the grids have {plural(count, 'trial')}; "
            "raise it, or take values out"
        )
    seen: dict[str, str] = {}
    for place, tier in enumerate(file.tiers):
        for index, model in enumerate(tier.models):
            keys = ("tiers", str(place), "models", str(index), "name")
            if model.name in seen:
                problems.append(f"{locator.name(keys)} is {model.name}, as {seen[model.name]} is; rename one")
            seen.setdefault(model.name, ".".join(keys[:-1]))
            for number, axis in enumerate(model.grid):
                problems += _twice(axis, (*keys[:-1], "grid", str(number)), locator)
            problems += _keys_twice(axes_of(tier, model), keys[:-1], locator)
        for number, axis in enumerate(tier.grid):
            problems += _twice(axis, ("tiers", str(place), "grid", str(number)), locator)
    if problems:
        raise RecipeError(problems[:_MOST_PROBLEMS])
    return count


def _twice(axis: Axis, keys: tuple[str, ...], locator: Locator) -> Iterator[str]:
    """A problem for each value that an axis has twice: it would be the same trial."""
    counts = Counter(toml_text(value) for value in axis.values)
    for text in (text for text, count in counts.items() if count > 1):
        yield f"{locator.name((*keys, 'values'))} holds {shorten(text, 40)} twice; keep one"


def _keys_twice(axes: list[Axis], keys: tuple[str, ...], locator: Locator) -> Iterator[str]:
    names = [name for axis in axes for name in axis.keys]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"{locator.name(keys)} has two grids over {shorten(name, 60)}; keep one"


def _read_base(file: SweepFile, path: Path, data: dict[str, Any], locator: Locator) -> _Base:
    if isinstance(file.recipe, dict):
        return _Base(file.recipe, locator, path.resolve().parent)
    check_name(file.recipe)
    base = path.parent / file.recipe
    text = read_recipe_text(base)
    values = parse(text, base.name)
    if "tiers" in values:
        raise InputError(f"{locator.name(('recipe',))} is {base.name}, a sweep itself; give a recipe")
    return _Base(values, Locator(text, base.name, {}), base.resolve().parent, text)


def _points(
    tier: Tier, model: SweepModel, places: tuple[str, str], locator: Locator
) -> Iterator[tuple[dict[str, Any], dict[str, tuple[Any, str]]]]:
    """The values of each point of the grids, and all changes of the base with their place in the file."""
    given: dict[str, tuple[Any, str]] = {}
    for settings, place in ((tier.settings, places[0]), (model.settings, places[1])):
        for key, value in flatten(settings).items():
            given[key] = (value, _line(locator, f"{place}.settings.{key}"))
    if model.from_ is not None:
        given["model.from"] = (model.from_, _line(locator, f"{places[1]}.from"))
    axes = axes_of(tier, model)
    lines = [
        _line(
            locator, f"{places[axis in model.grid]}.grid.{(tier, model)[axis in model.grid].grid.index(axis)}"
        )
        for axis in axes
    ]
    for point in product(*(axis.points for axis in axes)):
        values = {key: value for axis, part in zip(axes, point) for key, value in zip(axis.keys, part)}
        where = {key: line for axis, line in zip(axes, lines) for key in axis.keys}
        yield values, {**given, **{key: (value, where[key]) for key, value in values.items()}}


def _line(locator: Locator, dotted: str) -> str:
    """`sweep.toml:12` of a key of the sweep file."""
    found = re.search(r"\(([^()]*)\)$", locator.name(tuple(dotted.split("."))))
    return found[1] if found else locator.file


def _make(
    base: _Base, tier: Tier, model: SweepModel, values: dict[str, Any], given: dict[str, tuple[Any, str]]
) -> Trial:
    """The trial of a point. Raises: RecipeError with the problems of its recipe, at their places."""
    name = _name(model.name, values)
    changes = {"name": name} | {key: value for key, (value, _) in given.items()}
    locator = base.locator.over({key: place for key, (_, place) in given.items()})
    recipe = recipe_from(change(base.values, changes), locator)
    return Trial(name, tier.name, model.name, tier.priority, values, absolute(recipe, base.folder))


def _name(model: str, values: Mapping[str, Any]) -> str:
    """The name of a trial: the model and its values, or a hash of them where they make no name."""
    parts = []
    for key, value in values.items():
        last = key.rpartition(".")[2]
        is_float = isinstance(value, float)
        text = re.sub(r"e(-?)\+?0*", r"e\1", f"{value:g}") if is_float else str(value).lower()
        parts.append(f"{_SHORT.get(last, last)}{text}".replace("_", "-"))
    name = "-".join([model, *parts])
    if re.fullmatch(rf"[a-z0-9.-]{{1,{_LONGEST_NAME}}}", name):
        return name
    return f"{model}-{values_hash(dict(values))[:12]}"


def _find_twins(trials: list[Trial]) -> Iterator[str]:
    """Trials that would train the same recipe under two names."""
    seen: dict[str, Trial] = {}
    for trial in trials:
        values = trial.recipe.to_dict()
        identity = values_hash({**values, "name": ""})
        if (twin := seen.setdefault(identity, trial)) is not trial:
            same = "trials of one name" if twin.name == trial.name else f"{twin.name} and {trial.name}"
            yield f"{same} would train the same recipe; take a value or a model out"
    names: dict[str, Trial] = {}
    for trial in trials:
        other = names.setdefault(trial.name, trial)
        if other is not trial and (keys := diff(other.recipe, trial.recipe)):
            yield f"two trials are named {trial.name} and differ in {', '.join(keys)}; rename a model"

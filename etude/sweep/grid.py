"""From a sweep file to its trials and searches: each point as a checked recipe, or every problem at once."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from etude.durable import check_name
from etude.errors import InputError, RecipeError
from etude.recipe.load import absolute, change, diff, flatten, read_recipe_text, recipe_from, values_hash
from etude.recipe.problems import describe, group_by_keys
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator, parse, toml_text
from etude.sweep.rungs import rival_problems, rung_problems
from etude.sweep.schema import (
    Axis,
    Halving,
    Range,
    Search,
    SweepFile,
    SweepModel,
    Tier,
    axes_of,
    count_trials,
    ranges_of,
)
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
    """A point of a grid, or one that a search chose: a recipe that is trained once.

    values  by key of the grid and of the ranges
    study   name of the search that chose it; "" for a point of a grid
    halving  the rungs that it pauses at; None for a trial that is trained to its end
    """

    name: str
    tier: str
    model: str
    priority: int
    values: Mapping[str, Any]
    recipe: Recipe = field(repr=False)
    study: str = ""
    halving: Halving | None = None

    def rungs(self, steps_per_epoch: int) -> list[int]:
        """The steps that it pauses at."""
        given = self.halving
        if given is None:
            return []
        return [rung * (steps_per_epoch if given.unit == "epochs" else 1) for rung in given.rungs]


@dataclass(frozen=True)
class Study:
    """A search for one model, at one point of its grids.

    make  a trial of this name with these values, by key of the ranges
    """

    name: str
    tier: str
    model: str
    priority: int
    ranges: tuple[Range, ...]
    search: Search
    make: Callable[[str, Mapping[str, Any]], Trial] = field(repr=False, compare=False)

    def trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        """The trial of a number with the values that were chosen for it. Raises: RecipeError."""
        return replace(self.make(self.name_of(number), values), study=self.name)

    def name_of(self, number: int) -> str:
        """The name of the trial of a number."""
        if len(name := f"{self.name}-search{number}") <= _LONGEST_NAME:
            return name
        return f"{self.model}-{values_hash({'study': self.name, 'number': number})[:12]}"

    def ends(self) -> Iterator[dict[str, Any]]:
        """Values by key, so that each end of each range is among them."""
        first = {each.key_: each.ends[0] for each in self.ranges}
        yield first
        for each in self.ranges:
            yield from ({**first, each.key_: value} for value in each.ends[1:])


@dataclass(frozen=True)
class Sweep:
    """A sweep file with the trials that are known, and its searches, which add others.

    text, base_text  of the file, and of the file of its base
    """

    file: SweepFile
    trials: tuple[Trial, ...]
    text: str
    base_text: str
    studies: tuple[Study, ...] = ()


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file and make its trials.

    Raises: InputError if there is no such file; RecipeError with every problem, and with the number of trials
    if there are too many, before any is made.
    """
    check_name(path)
    text = read_recipe_text(path)
    data = parse(text, path.name)
    locator = Locator(text, path.name, {})
    if "data" in data and "tiers" not in data:
        raise InputError(f"{path.name} is a recipe, not a sweep; give a sweep file, which has [[tiers]]")
    file = _validate(data, locator)
    count = _require_few(file, locator)
    base = _read_base(file, path, data, locator)
    trials, studies = list[Trial](), list[Study]()
    problems: dict[str, None] = {}
    for tier_place, tier in enumerate(file.tiers):
        for model_place, model in enumerate(tier.models):
            places = (f"tiers.{tier_place}", f"tiers.{tier_place}.models.{model_place}")
            ranges = ranges_of(tier, model)
            for point in _points(base, tier, model, places, locator):
                try:
                    if file.search and ranges:
                        studies.append(point.study(ranges, file.search))
                    else:
                        trials.append(point.make(point.name, {}))
                except RecipeError as error:
                    problems |= dict.fromkeys(error.problems)
            if len(problems) >= _MOST_PROBLEMS:
                break
    problems |= dict.fromkeys(_find_twins(trials))
    if file.halving and not problems:
        rivals = [(each.model, each.recipe) for each in trials]
        for study in studies:
            recipe = study.trial(0, next(study.ends())).recipe
            rivals += [(study.model, recipe)] * study.search.trials
        problems |= dict.fromkeys(rival_problems(rivals, _line(locator, "halving")))
    if problems:
        raise RecipeError(list(problems)[:_MOST_PROBLEMS])
    assert len(trials) + sum(study.search.trials for study in studies) == count
    return Sweep(file, tuple(trials), text, base.text, tuple(studies))


def outline(path: Path) -> tuple[SweepFile, str, "list[Point]"]:
    """A sweep file, its text, and the points of its grids, without its base. Raises: as `load_sweep`."""
    text = read_recipe_text(path)
    locator = Locator(text, path.name, {})
    file = _validate(parse(text, path.name), locator)
    _require_few(file, locator)
    base, no_places = _Base({}, locator, path.parent, halving=file.halving), ("", "")
    models = [(tier, model) for tier in file.tiers for model in tier.models]
    return file, text, [each for parts in models for each in _points(base, *parts, no_places, locator)]


@dataclass(frozen=True)
class _Base:
    """The base recipe as plain values, its file for messages, the folder that its paths begin in, rungs."""

    values: dict[str, Any]
    locator: Locator
    folder: Path
    text: str = ""
    halving: Halving | None = None


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
        what = f"{count:,} trials; a sweep has at most {MOST_TRIALS:,}; take values or searches out"
        raise RecipeError([f"{locator.file} describes {what}"])
    if file.budget.trials is not None and count > file.budget.trials:
        name, parts = locator.name(("budget", "trials")), f"grids{' and searches' * bool(file.search)}"
        problems.append(
            f"{name} is {file.budget.trials:,}, but the {parts} have {plural(count, 'trial')}; "
            "raise it, or take values out"
        )
    problems += _search_problems(file, locator)
    problems += _names_given(file, locator)
    seen: dict[str, str] = {}
    for place, tier in enumerate(file.tiers):
        for index, model in enumerate(tier.models):
            keys = ("tiers", str(place), "models", str(index), "name")
            if model.name in seen:
                problems.append(f"{locator.name(keys)} is {model.name}, as {seen[model.name]} is; rename one")
            seen.setdefault(model.name, ".".join(keys[:-1]))
            for number, axis in enumerate(model.grid):
                problems += _twice(axis, (*keys[:-1], "grid", str(number)), locator)
            problems += _keys_twice(tier, model, keys[:-1], locator)
        for number, axis in enumerate(tier.grid):
            problems += _twice(axis, ("tiers", str(place), "grid", str(number)), locator)
    if problems:
        raise RecipeError(problems[:_MOST_PROBLEMS])
    return count


def _names_given(file: SweepFile, locator: Locator) -> Iterator[str]:
    """A problem for each tier or model that sets `name`, which a sweep gives to its trials."""
    for place, tier in enumerate(file.tiers):
        holders: list[tuple[Tier | SweepModel, str]] = [(tier, f"tiers.{place}")]
        holders += [(model, f"tiers.{place}.models.{number}") for number, model in enumerate(tier.models)]
        for holder, dotted in holders:
            keys = [("settings.name", [*holder.settings])]
            keys += [(f"grid.{number}", axis.keys) for number, axis in enumerate(holder.grid)]
            keys += [(f"search.{number}", [each.key_]) for number, each in enumerate(holder.search)]
            for within, names in keys:
                if "name" in names:
                    where = locator.name(tuple(f"{dotted}.{within}".split(".")))
                    yield f"{where} sets name, which a sweep gives to each of its trials; take it out"


def _twice(axis: Axis, keys: tuple[str, ...], locator: Locator) -> Iterator[str]:
    """A problem for each value that an axis has twice: it would be the same trial."""
    counts = Counter(toml_text(value) for value in axis.values)
    for text in (text for text, count in counts.items() if count > 1):
        yield f"{locator.name((*keys, 'values'))} holds {shorten(text, 40)} twice; keep one"


def _keys_twice(tier: Tier, model: SweepModel, keys: tuple[str, ...], locator: Locator) -> Iterator[str]:
    """A problem for each key that two grids or ranges of a model set."""
    grids = [name for axis in axes_of(tier, model) for name in axis.keys]
    ranges = [each.key_ for each in ranges_of(tier, model)]
    for name in dict.fromkeys([*grids, *ranges]):
        counts = grids.count(name), ranges.count(name)
        if sum(counts) > 1:
            what = "a grid and a range" if all(counts) else f"two {'grids' if counts[0] else 'ranges'}"
            yield f"{locator.name(keys)} has {what} over {shorten(name, 60)}; keep one"
        sections = {name[: dot.start()] for dot in re.finditer(r"\.", name[:99])}
        for part in sections.intersection([*grids, *ranges]):
            yield f"{locator.name(keys)} sets {part} and {shorten(name, 60)}, which is in it; keep one"


def _search_problems(file: SweepFile, locator: Locator) -> Iterator[str]:
    """A problem where ranges have no [search], or it has none, or a list has a value twice."""
    ranges = [
        (f"tiers.{place}{inner}.search.{number}", each)
        for place, tier in enumerate(file.tiers)
        for inner, found in [
            ("", tier.search),
            *((f".models.{index}", model.search) for index, model in enumerate(tier.models)),
        ]
        for number, each in enumerate(found)
    ]
    if ranges and file.search is None:
        yield (
            f"{locator.name(tuple(ranges[0][0].split('.')))} is a range, but there is no [search]; add one, "
            "for example with trials = 30"
        )
    if file.search and not ranges:
        yield f"{locator.name(('search',))} has no ranges; add [[tiers.search]] with a key, low and high"
    for dotted, each in ranges:
        counts = Counter(toml_text(value) for value in each.values or ())
        for text in (text for text, count in counts.items() if count > 1):
            yield f"{locator.name((*dotted.split('.'), 'values'))} holds {shorten(text, 40)} twice; keep one"


def _read_base(file: SweepFile, path: Path, data: dict[str, Any], locator: Locator) -> _Base:
    if isinstance(file.recipe, dict):
        return _Base(file.recipe, locator, path.resolve().parent, halving=file.halving)
    check_name(file.recipe)
    base = path.parent / file.recipe
    text = read_recipe_text(base)
    values = parse(text, base.name)
    if "tiers" in values:
        raise InputError(f"{locator.name(('recipe',))} is {base.name}, a sweep itself; give a recipe")
    return _Base(values, Locator(text, base.name, {}), base.resolve().parent, text, file.halving)


def _line(locator: Locator, dotted: str) -> str:
    """`sweep.toml:12` of a key of the sweep file."""
    found = re.search(r"\(([^()]*)\)$", locator.name(tuple(dotted.split("."))))
    return found[1] if found else locator.file


@dataclass(frozen=True)
class Point:
    """A point of the grids of a model.

    given   changes of the base
    places  in the sweep file, of the keys that it sets
    """

    base: _Base
    tier: Tier
    model: SweepModel
    name: str
    values: dict[str, Any]
    given: dict[str, Any]
    places: dict[str, str]

    def make(self, name: str, chosen: Mapping[str, Any]) -> Trial:
        """The trial here, with values of ranges. Raises: RecipeError with its problems, at their places."""
        changes = {"name": name, **self.given, **chosen}
        recipe = recipe_from(change(self.base.values, changes), self.base.locator.over(self.places))
        if (rungs := self.base.halving) and (found := rung_problems(rungs, recipe, self.places["halving"])):
            raise RecipeError(found)
        return Trial(
            name, self.tier.name, self.model.name, self.tier.priority, {**self.values, **chosen},
            absolute(recipe, self.base.folder), halving=self.base.halving,
        )  # fmt: skip

    def study(self, ranges: list[Range], search: Search) -> Study:
        """The search here, all ends of which are possible. Raises: RecipeError with their problems."""
        study = Study(
            name=self.name, tier=self.tier.name, model=self.model.name, priority=self.tier.priority,
            ranges=tuple(ranges), search=search, make=self.make,
        )  # fmt: skip
        problems: dict[str, None] = {}
        for values in study.ends():
            try:
                recipe = study.trial(0, values).recipe
            except RecipeError as error:
                problems |= dict.fromkeys(error.problems)
                continue
            if recipe.data.validation == "none":
                problems["search needs validation rows to choose by; data.validation is none"] = None
        if problems:
            raise RecipeError(list(problems))
        return study


def _points(
    base: _Base, tier: Tier, model: SweepModel, places: tuple[str, str], locator: Locator
) -> Iterator[Point]:
    """Each point of the grids of a model, with all changes of the base and their places in the file."""
    given: dict[str, Any] = {}
    where = {"halving": _line(locator, "halving")}
    for settings, place in ((tier.settings, places[0]), (model.settings, places[1])):
        for key, value in flatten(settings).items():
            given[key], where[key] = value, _line(locator, f"{place}.settings.{key}")
    if model.from_ is not None:
        given["model.from"], where["model.from"] = model.from_, _line(locator, f"{places[1]}.from")
    holders: list[tuple[Tier | SweepModel, str]] = [(tier, places[0]), (model, places[1])]
    for holder, place in holders:
        for number, axis in enumerate(holder.grid):
            where |= dict.fromkeys(axis.keys, _line(locator, f"{place}.grid.{number}"))
        for number, each in enumerate(holder.search):
            where[each.key_] = _line(locator, f"{place}.search.{number}")
    axes = axes_of(tier, model)
    names: set[str] = set()
    for point in product(*(axis.points for axis in axes)):
        values = {key: value for axis, part in zip(axes, point) for key, value in zip(axis.keys, part)}
        names.add(name := _name(model.name, values, names))
        yield Point(base, tier, model, name, values, given={**given, **values}, places=where)


def _name(model: str, values: Mapping[str, Any], taken: set[str]) -> str:
    """The name of a trial: the model and its values, or a hash of them where they make no name of its own."""
    parts = []
    for key, value in values.items():
        last = key.rpartition(".")[2]
        is_float = isinstance(value, float)
        text = re.sub(r"e(-?)\+?0*", r"e\1", f"{value:g}") if is_float else str(value).lower()
        parts.append(f"{_SHORT.get(last, last)}{text}".replace("_", "-"))
    name = "-".join([model, *parts])
    if name not in taken and re.fullmatch(rf"[a-z0-9.-]{{1,{_LONGEST_NAME}}}", name):
        return name
    return f"{model}-{values_hash(dict(values))[:12]}"


def _find_twins(trials: list[Trial]) -> Iterator[str]:
    """Trials that would train the same recipe under two names."""
    seen, names = dict[str, Trial](), dict[str, Trial]()
    for trial in trials:
        identity = values_hash({**trial.recipe.to_dict(), "name": ""})
        if (twin := seen.setdefault(identity, trial)) is not trial:
            same = "trials of one name" if twin.name == trial.name else f"{twin.name} and {trial.name}"
            yield f"{same} would train the same recipe; take a value or a model out"
        other = names.setdefault(trial.name, trial)
        if other is not trial and (keys := diff(other.recipe, trial.recipe)):
            yield f"two trials are named {trial.name} and differ in {', '.join(keys)}; rename a model"

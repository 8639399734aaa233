"""The sweep that a folder was begun for, from its own file and recipes: the base may be gone or changed."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.recipe.load import load_recipe
from etude.sweep.decisions import Decisions
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Point, Sweep, Trial, outline
from etude.sweep.schema import SweepFile, ranges_of


def read_begun(folder: SweepFolder, decided: Decisions) -> Sweep:
    """The sweep of a folder with its trials, those that searches chose among them; `studies` are left out.

    A trial without a recipe in the folder is left out. Raises: InputError if its file cannot be read.
    """
    path = folder.path / "sweep.toml"
    durable.check_plain(path, follow=False)
    file, text, points = outline(path)
    return Sweep(file, tuple(_trials(folder, file, points, decided)), text, "")


def _trials(folder: SweepFolder, file: SweepFile, points: list[Point], decided: Decisions) -> Iterator[Trial]:
    searched = {}
    for point in points:
        if file.search and ranges_of(point.tier, point.model):
            searched[point.name] = point
        else:
            yield from _trial(folder, point, point.name, {})
    for choice in decided.found:
        if choice.study in searched and not choice.problem:
            yield from _trial(folder, searched[choice.study], choice.trial, choice.values, choice.study)


def _trial(
    folder: SweepFolder, point: Point, name: str, chosen: Mapping[str, Any], study: str = ""
) -> Iterator[Trial]:
    path, values = folder.recipe(name), {**point.values, **chosen}
    if path.parent != folder.path / "trials":  # a name that leads elsewhere
        return
    with contextlib.suppress(InputError):
        durable.check_plain(path, follow=False)
        recipe = load_recipe(path)
        tier, model = point.tier, point.model.name
        yield Trial(
            name, tier.name, model, tier.priority, values=values, recipe=recipe, study=study,
            halving=point.base.halving,
        )  # fmt: skip

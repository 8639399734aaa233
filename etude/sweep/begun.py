"""The sweep that a folder was begun for, from its own file and recipes: the base may be gone or changed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from etude import durable
from etude.errors import InputError
from etude.recipe.load import load_recipe
from etude.sweep.decisions import Choice, Decisions
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Point, Sweep, Trial, outline
from etude.sweep.schema import SweepFile, ranges_of
from etude.text import shorten


def read_begun(
    folder: SweepFolder, decided: Decisions, tell: Callable[[str], object] = lambda problem: None
) -> Sweep:
    """The sweep of a folder with its trials, those that searches chose among them; `studies` are left out.

    A trial without a recipe of its own in the folder is left out, which is told. Raises: InputError if the
    file of the sweep cannot be read.
    """
    path = folder.path / "sweep.toml"
    durable.check_plain(path, follow=False)
    file, text, points = outline(path)
    trials = list[Trial]()
    for point, choice in _places(file, points, decided):
        name = choice.trial if choice else point.name
        try:
            trials.append(_trial(folder.recipe(name), folder.path / "trials", point, choice))
        except InputError as error:
            tell(f"trial {shorten(name, 64)} is left out: {shorten(error)}")
    return Sweep(file, tuple(trials), text, "")


def _places(
    file: SweepFile, points: list[Point], decided: Decisions
) -> Iterator[tuple[Point, Choice | None]]:
    """The points of grids that are trials, and those that searches are at with each choice there."""
    searched = {}
    for point in points:
        if file.search and ranges_of(point.tier, point.model):
            searched[point.name] = point
        else:
            yield point, None
    for choice in decided.found:
        if choice.study in searched and not choice.problem:
            yield searched[choice.study], choice


def _trial(path: Path, folder: Path, point: Point, choice: Choice | None) -> Trial:
    """The trial of a recipe in the folder of trials. Raises: InputError if it is not one."""
    if path.parent != folder:
        raise InputError("its name leads out of the folder")
    durable.check_plain(path, follow=False)
    recipe, tier = load_recipe(path), point.tier
    if f"{recipe.name}.toml" != path.name:
        raise InputError(f"{path} is the recipe of {recipe.name}")
    chosen, study = (choice.values, choice.study) if choice else ({}, "")
    return Trial(
        recipe.name, tier.name, point.model.name, tier.priority, values={**point.values, **chosen},
        recipe=recipe, study=study, halving=point.base.halving,
    )  # fmt: skip

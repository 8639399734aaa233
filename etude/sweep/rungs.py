"""Rungs of successive halving: which trials go on from one, and what that costs.

A trial goes on as soon as it is among the best 1 of `reduction_factor` of those that came to the rung so far.
No trial waits for a slower one, so more go on than if all were compared at once: a few that were good only
among the first. Each answer follows from the order in which trials came, and from their figures, alone.

Source: ASHA (Li et al., MLSys 2020, arXiv 1810.05934).
"""

import random
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from etude.recipe.schema import Recipe
from etude.sweep.schema import MEASURES, Halving
from etude.text import shorten

_MOST_DRAWS = 200
_MOST_DRAWN = 100_000  # trials in all draws
_TAIL = 0.05  # of the draws at either end of a range


@dataclass(frozen=True)
class AtRung:
    """The highest rung that a trial came to.

    place  from 0
    worth  its metric there, with the sign by which more is better
    waits  True if it has not gone on
    """

    place: int
    worth: float | None
    waits: bool


class Rung:
    """The trials of one model that came to a rung.

    gone_on  names of those that have gone on, or are to
    """

    def __init__(self, reduction_factor: int) -> None:
        self._factor = reduction_factor
        self._order: list[tuple[float, int, str]] = []  # the best first; of equals the first that came
        self.gone_on: set[str] = set()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, name: str, worth: float | None) -> list[str]:
        """Take in a trial that comes; returns those that go on now, the best first.

        worth: its metric with the sign by which more is better. Without a finite one it does not go on.
        """
        known = worth if worth is not None and isfinite(worth) else -inf
        insort(self._order, (-known, len(self._order), name))
        best = self._order[: len(self._order) // self._factor]
        new = [each for loss, _, each in best if each not in self.gone_on and loss < inf]
        self.gone_on.update(new)
        return new

    def rank(self, name: str) -> int:
        """The place of a trial among those that came, from 1."""
        return next(place for place, (*_, each) in enumerate(self._order, 1) if each == name)

    def best_left(self) -> str | None:
        """The best of those that have not gone on."""
        return next((each for loss, _, each in self._order if each not in self.gone_on and loss < inf), None)


def rung_problems(halving: Halving, recipe: Recipe, where: str) -> list[str]:
    """The reasons why a recipe cannot pause at rungs. where: their line in the sweep file."""
    unit, rungs, evaluate = halving.unit, halving.rungs, recipe.evaluate
    name, length = f"halving.{unit} ({where})", getattr(recipe.train, unit)
    if length is None:
        other = "steps" if unit == "epochs" else "epochs"
        return [f"{name} are rungs in {unit}, and the length is train.{other}; give halving.{other}"]
    problems = []
    if rungs[-1] >= length:
        problems.append(f"{name} has a rung at {rungs[-1]}, and train.{unit} is {length}; rungs are below it")
    if recipe.data.validation == "none":
        problems.append(f"{name} needs validation rows to compare by; data.validation is none")
    every: int | None = evaluate.every_steps if unit == "steps" else evaluate.every_epochs
    if unit == "epochs" and evaluate.every_steps is None:
        every = every or 1
    missed = [rung for rung in rungs if not every or rung % every]
    if missed and every:
        problems.append(
            f"{name} has a rung at {missed[0]}, where nothing is evaluated; evaluate.every_{unit} is {every}"
        )
    elif missed:
        problems.append(f"{name} needs evaluations at its rungs; give evaluate.every_{unit}")
    if recipe.train.devices > 1:
        problems.append(f"{name} is for trials of one device; train.devices is {recipe.train.devices}")
    return problems


def rival_problems(trials: Sequence[tuple[str, Recipe]], where: str) -> list[str]:
    """The reasons why trials of a model cannot be compared at rungs. trials: model and recipe of each."""
    problems = []
    for model in dict.fromkeys(model for model, _ in trials):
        found = [recipe for each, recipe in trials if each == model]
        if len(found) < 2:
            problems.append(f"halving ({where}) compares trials of a model, and {model} has 1; give it more")
            continue
        for key in MEASURES:
            section, _, name = key.partition(".")
            values = {str(getattr(getattr(recipe, section), name)) for recipe in found}
            if len(values) > 1:
                shown = " and ".join(shorten(value, 40) for value in sorted(values)[:3])
                problems.append(
                    f"halving ({where}) compares trials by one metric on the same rows, and {key} of "
                    f"{model} is {shown}; keep one"
                )
    return problems


def foresee_range(models: Sequence[Sequence[Sequence[float]]], reduction_factor: int) -> tuple[float, float]:
    """The cost of trials that pause at rungs, as a range that 9 of 10 random orders of them lie in.

    models: for each the trials, for each the costs of its parts between rungs. Figures are drawn anew at each
    rung, which changes who goes on, and not how many.
    """
    draw = random.Random(0)
    count = sum(map(len, models))
    draws = max(min(_MOST_DRAWS, _MOST_DRAWN // max(count, 1)), 10)
    found = sorted(sum(_draw_cost(trials, reduction_factor, draw) for trials in models) for _ in range(draws))
    return found[round(_TAIL * (draws - 1))], found[round((1 - _TAIL) * (draws - 1))]


def _draw_cost(trials: Sequence[Sequence[float]], reduction_factor: int, draw: random.Random) -> float:
    """The cost of the trials of a model that come to each rung in a random order."""
    parts = len(trials[0]) if trials else 0
    left, cost = draw.sample(range(len(trials)), len(trials)), 0.0
    for part in range(parts):
        cost += sum(trials[place][part] for place in left)
        rung = Rung(reduction_factor)
        going = [int(name) for place in left for name in rung.add(str(place), draw.random())]
        left = going or [int(name) for name in [rung.best_left()] if name is not None]
    return cost

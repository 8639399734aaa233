"""What other seeds bring about: runs that differ in nothing else, and whether a difference is larger than
theirs.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.recipe.load import recipe_hash
from etude.records.events import plain
from etude.report.history import History
from etude.report.wording import NOTHING
from etude.scores.intervals import Difference, difference_of_means


@dataclass(frozen=True)
class Group:
    """Runs by their places in the order given: finished ones that differ in their seed only, or one alone."""

    name: str
    places: list[int]
    seeds: list[int]

    @property
    def title(self) -> str:
        more = len(self.seeds) - 1
        return f"{self.name} + {more} seed{'s' * (more > 1)}" if more else self.name

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "runs": self.places, "seeds": self.seeds}


@dataclass(frozen=True)
class NoiseBand:
    """A figure over the runs of a group: mean, standard deviation and range; None where too few of them have
    it.

    `difference` is that of the mean and the mean of the first group, with the interval that other seeds
    leave.
    """

    count: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    difference: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.difference
        return {
            "count": self.count,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "range": [self.low, self.high],
            "difference": found and plain([found.value, found.low, found.high]),
            "inside_the_noise": found and found.is_noise,
        }

    def spread_text(self, text: Callable[[Any], str]) -> str:
        if self.mean is None or self.deviation is None:
            return text(self.mean)
        return f"{text(self.mean)} ± {text(self.deviation)} [{text(self.low)}, {text(self.high)}]"

    def difference_text(self, text: Callable[[Any], str]) -> str:
        found = self.difference
        if found is None:
            return NOTHING
        said = [f"{'-' * (value < 0)}{text(abs(value))}" for value in (found.value, found.low, found.high)]
        noise = ": inside the noise" if found.is_noise else ""
        return f"{'+' * (found.value > 0)}{said[0]} [{said[1]}, {said[2]}]{noise}"


def group_by_recipe(histories: Sequence[History]) -> list[Group]:
    """The groups in order of their first run; empty if every run is alone.

    Of runs with one seed the last given stands for it: the same run twice tells nothing of noise.
    """
    found: dict[str, dict[int, int]] = {}
    for place, history in enumerate(histories):
        found.setdefault(_all_but_seed(history, place), {})[history.run.recipe.seed] = place
    groups = [
        Group(histories[min(seeds.values())].run.name, list(seeds.values()), list(seeds))
        for seeds in found.values()
    ]
    return groups if any(len(group.seeds) > 1 for group in groups) else []


def noise_band(groups: Sequence[Group], values: Sequence[float | None]) -> list[NoiseBand]:
    """Of each group what a figure comes to; `values` of every run.

    What is not known or not finite is left out.
    """
    known = [
        [
            float(value)
            for place in group.places
            if (value := values[place]) is not None and math.isfinite(value)
        ]
        for group in groups
    ]
    return [
        NoiseBand(
            count=len(mine),
            mean=statistics.fmean(mine) if mine else None,
            deviation=statistics.stdev(mine) if len(mine) > 1 else None,
            low=min(mine, default=None),
            high=max(mine, default=None),
            difference=difference_of_means(mine, known[0]) if index else None,
        )
        for index, mine in enumerate(known)
    ]


def _all_but_seed(history: History, place: int) -> str:
    """What tells a run from others but for its seed; a run that goes on, or was cut off, is like no other."""
    if history.run.state != "finished":
        return f"run {place}"
    recipe = recipe_hash(history.run.recipe.model_copy(update={"seed": 0, "name": ""}))
    conditions = history.attempts[-1].environment if history.attempts else {}
    made_of = [conditions.get(key) for key in ("base", "own_code", "precision", "device")]
    data = history.data and history.data.fingerprint
    return json.dumps([recipe, data, history.run.info.get("parent"), made_of], sort_keys=True)

"""Noise of seeds: runs that differ in nothing else, and whether a difference is larger than theirs."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.recipe.load import recipe_hash
from etude.records.events import plain
from etude.report.history import History
from etude.scores.intervals import Difference, difference_of_means


@dataclass(frozen=True)
class Group:
    """Runs by their places in the order given: finished ones that differ in their seed only, or one alone.

    again   places of runs whose seed a later one has
    """

    name: str
    places: list[int]
    seeds: list[int]
    again: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "runs": self.places, "seeds": self.seeds}


@dataclass(frozen=True)
class NoiseBand:
    """A figure over the runs of a group: mean, standard deviation and range; None where too few have it.

    difference   the mean less that of the first group, with the interval that other seeds leave
    """

    count: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    difference: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        gain = self.difference
        return {
            "count": self.count,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "range": [self.low, self.high],
            "difference": gain and plain([gain.value, gain.low, gain.high]),
            "inside_the_noise": gain and gain.is_noise,
        }


def group_by_recipe(histories: Sequence[History]) -> list[Group]:
    """The groups in order of their first run; empty if every run is alone.

    Of runs with one seed the last given stands for it: the same run twice tells nothing of noise.
    """
    places: dict[str, dict[int, list[int]]] = {}
    for place, history in enumerate(histories):
        mine = places.setdefault(_all_but_seed(history, place), {})
        mine.setdefault(history.run.recipe.seed, []).append(place)
    groups = []
    for by_seed in places.values():
        kept, again = (
            [each[-1] for each in by_seed.values()],
            [n for each in by_seed.values() for n in each[:-1]],
        )
        groups.append(Group(histories[min(kept)].run.name, kept, list(by_seed), again))
    return groups if any(len(group.seeds) > 1 for group in groups) else []


def noise_band(groups: Sequence[Group], values: Sequence[float | None]) -> list[NoiseBand]:
    """The band of a figure for each group; `values` of every run, those that are finite count."""
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    known = [
        [float(value) for place in group.places if (value := finite[place]) is not None] for group in groups
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
    """All of a run that must be equal in a group; a run that goes on, or was cut off, is like no other."""
    if history.run.state != "finished":
        return f"run {place}"
    recipe = recipe_hash(history.run.recipe.model_copy(update={"seed": 0, "name": ""}))
    conditions = history.attempts[-1].environment if history.attempts else {}
    made_of = [conditions.get(key) for key in ("base", "own_code", "precision", "device")]
    data = history.data and history.data.fingerprint
    first = [history.run.info.get(key) for key in ("parent", "weights")]
    changes = plain(history.changes)
    return json.dumps([recipe, data, first, made_of, changes], sort_keys=True)

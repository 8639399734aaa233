"""Krippendorff's alpha: how far raters agree beyond chance, with any number of them and ratings missing.

Source: K. Krippendorff, Content Analysis (2004), chapter 11.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from etude.scores.intervals import bootstrap
from etude.scores.labels import Floats, Ints

Level = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True)
class Agreement:
    """Alpha of ratings, 1 for full agreement and 0 for that of chance, with its interval of 95 % over items.

    alpha  NaN where nobody rated what another has rated, or all ratings are one value
    items  that two raters or more have rated; ratings: of these
    """

    alpha: float
    low: float
    high: float
    items: int
    ratings: int


def agreement(
    items: Sequence[Sequence[float]], level: Level = "ordinal", *, samples: int = 1000
) -> Agreement:
    """The agreement of the ratings of items, of each item those that there are.

    level: nominal, for values without an order; ordinal; interval, for values whose distances count. samples:
    of the bootstrap.
    """
    pairable = [list(item) for item in items if len(item) > 1]
    values = np.array(sorted({value for item in pairable for value in item}))
    counts = np.array([[item.count(value) for value in values] for item in pairable], dtype=float)
    if not pairable:
        return Agreement(math.nan, math.nan, math.nan, 0, 0)
    sizes = counts.sum(axis=1)
    # (items, values, values): pairs of ratings of an item by different raters.
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    pairs /= (sizes - 1)[:, None, None]

    def alpha(chosen: Ints) -> float:
        return _alpha(pairs[chosen].sum(axis=0), values, level)

    every = np.arange(len(pairable))
    found = bootstrap(alpha, len(pairable), samples=samples)
    return Agreement(alpha(every), found.low, found.high, len(pairable), int(sizes.sum()))


def _alpha(coincidences: Floats, values: Floats, level: Level) -> float:
    """1 less observed over expected disagreement. coincidences: (values, values)."""
    margins = coincidences.sum(axis=1)
    apart = _distances(values, margins, level)
    expected = float((np.outer(margins, margins) * apart).sum())
    observed = float((coincidences * apart).sum())
    return float(1 - (margins.sum() - 1) * observed / expected) if expected else math.nan


def _distances(values: Floats, margins: Floats, level: Level) -> Floats:
    """Squared differences between values (k, k)."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    # Ordinal ones are as far apart as there are ratings between them, ends by half.
    places = np.cumsum(margins) - margins / 2 if level == "ordinal" else values
    squared: Floats = (places[:, None] - places[None, :]) ** 2
    return squared

"""Krippendorff's alpha beside published tables and the sum over all pairs of ratings."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.scores.agreement import agreement

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): four observers, twelve units, a blank is missing.
_TABLE = [
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
]


def _items(table: list[tuple[float | None, ...]]) -> list[list[float]]:
    return [[value for value in unit if value is not None] for unit in zip(*table)]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_tables_have_their_alpha(level, alpha: float) -> None:
    found = agreement(_items(_TABLE), level)
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert (found.items, found.ratings) == (11, 40) and found.low < found.alpha < found.high <= 1


def test_two_observers_have_the_published_alpha() -> None:
    binary = [(0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)]
    assert agreement(_items(binary), "nominal").alpha == pytest.approx(0.095, abs=5e-4)
    first, second = "aabbdcccedda", "babbbcccedd" + "d"
    nominal = [tuple(map(float, map(ord, each))) for each in (first, second)]
    assert agreement(_items(nominal), "nominal").alpha == pytest.approx(0.692, abs=5e-4)


@given(
    st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=8),
    st.sampled_from(["nominal", "interval"]),
)
def test_it_is_one_less_the_mean_distance_within_items_over_that_of_all(
    items: list[list[int]], level
) -> None:
    paired = [item for item in items if len(item) > 1]
    every = [value for item in paired for value in item]

    def apart(a: int, b: int) -> float:
        return float(a != b) if level == "nominal" else float((a - b) ** 2)

    def total(values: list[int]) -> float:
        return sum(apart(a, b) for a, b in itertools.permutations(values, 2))

    if not paired or len({*every}) == 1:
        assert math.isnan(agreement(items, level, samples=1).alpha)
        return
    within = sum(total(item) / (len(item) - 1) for item in paired) / len(every)
    among = total(every) / (len(every) * (len(every) - 1))
    assert agreement(items, level, samples=1).alpha == pytest.approx(1 - within / among)


def test_chance_has_none_and_equal_ratings_all() -> None:
    draw = random.Random(1)
    chance = agreement([[draw.randint(1, 5) for _ in range(3)] for _ in range(400)])
    assert chance.low < 0 < chance.high and chance.high - chance.low < 0.2
    assert agreement([[n % 5, n % 5] for n in range(20)]).alpha == 1

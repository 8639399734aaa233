import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.recipe.schedule import learning_rate_ratio, shared_steps
from etude.recipe.schema import Schedule

KINDS = ["constant", "linear", "cosine", "wsd"]


@given(st.sampled_from(KINDS), st.integers(2, 200), st.floats(0, 1), st.data())
def test_the_ratio_rises_then_never_rises_and_ends_at_the_minimum(
    kind: str, steps: int, least: float, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    schedule = Schedule(kind=kind, warmup_steps=warmup, min_lr_ratio=least)
    ratios = [learning_rate_ratio(step, schedule, steps=steps) for step in range(steps)]
    assert all(0 <= ratio <= 1 + 1e-12 for ratio in ratios)
    assert ratios[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    rest = ratios[warmup:]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rest))
    if kind != "constant" and len(rest) > 1:
        assert rest[-1] == pytest.approx(least)


def test_cosine_is_half_a_period_by_hand() -> None:
    schedule = Schedule(kind="cosine", warmup_steps=0, min_lr_ratio=0.0)
    ratios = [learning_rate_ratio(step, schedule, steps=5) for step in range(5)]
    assert ratios == pytest.approx([(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)])


def test_wsd_is_flat_and_then_a_straight_line() -> None:
    schedule = Schedule(kind="wsd", warmup_steps=2, min_lr_ratio=0.0, decay_ratio=0.4)
    ratios = [learning_rate_ratio(step, schedule, steps=10) for step in range(10)]
    assert ratios == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_a_longer_wsd_run_shares_its_flat_part() -> None:
    schedule = Schedule(kind="wsd", warmup_steps=3, decay_ratio=0.2)
    short, long = ([learning_rate_ratio(step, schedule, steps=n) for step in range(n)] for n in (20, 40))
    assert short[:16] == long[:16]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, int]:
    steps = draw(st.integers(2, 120))
    return Schedule(
        kind=draw(st.sampled_from(KINDS)),
        warmup_steps=draw(st.integers(0, min(steps - 1, 12))),
        min_lr_ratio=draw(st.sampled_from([0.0, 0.1, 1.0])),
        decay_ratio=draw(st.sampled_from([0.1, 0.2, 0.5, 1.0])),
    ), steps


@given(schedules(), schedules())
def test_shared_steps_are_those_whose_rates_are_equal_one_by_one(
    one: tuple[Schedule, int], other: tuple[Schedule, int]
) -> None:
    rates = [
        [learning_rate_ratio(step, each, steps=steps) for step in range(steps)]
        for each, steps in (one, other)
    ]
    equal = [mine == theirs for mine, theirs in zip(*rates)]
    assert shared_steps(*one, *other) == (equal.index(False) if False in equal else len(equal))

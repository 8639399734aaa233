"""A run is forecast before its first step by arithmetic and a trace, without running code of the user's."""

from collections.abc import Callable
from typing import Any

import pytest

from etude.own import Own
from etude.plan import make_plan
from etude.plan.beginning import forecast_at_start
from etude.plan.memory import memory_of
from etude.recipe.schema import Recipe

HELD = 10**8


def test_memory_is_what_the_process_holds_and_what_a_step_adds(make_recipe: Callable[..., Recipe]) -> None:
    plan = make_plan(make_recipe())
    made = forecast_at_start(plan, 4, 1e9, HELD)
    traced = memory_of(plan, 4)
    assert made.memory_bytes == HELD + traced.peak - traced.parts["weights"] and made.step == 0
    assert made.memory_bytes < forecast_at_start(plan, 8, 1e9, HELD).memory_bytes
    assert made == forecast_at_start(plan, 4, 1e9, HELD, (4, traced.added))
    assert made == forecast_at_start(plan, 4, 1e9, HELD, (8, 10**15))


def test_time_follows_the_rate(make_recipe: Callable[..., Recipe]) -> None:
    plan = make_plan(make_recipe({"train.steps": 10_000}))
    slow, fast = (forecast_at_start(plan, 8, rate, HELD).seconds for rate in (1e6, 2e6))
    assert slow == pytest.approx(2 * fast, rel=0.01)


def test_a_loss_of_the_users_is_not_run(make_recipe: Callable[..., Recipe]) -> None:
    def loss(model: Any, batch: Any) -> Any:
        raise AssertionError("it was run")

    plan = make_plan(make_recipe(), own=Own(loss=loss))
    assert forecast_at_start(plan, 4, 1e9, HELD).memory_bytes == HELD + 12 * plan.trainable

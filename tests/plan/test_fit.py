"""What fits is found by few traces, and the least that has to change is named first."""

from collections.abc import Callable
from typing import Any

import pytest

from etude.plan import make_plan
from etude.plan.fit import find_fit, largest_micro_batch, likely_micro_batch
from etude.plan.memory import Memory, memory_of
from etude.recipe.schema import Recipe

from .steps import recipe_of


def of(nbytes: int, fixed: int = 0) -> Memory:
    parts = {"weights": fixed, "saved activations": nbytes - fixed}
    held = {"parts": parts, "phases": {"loss": nbytes}}
    return Memory(peak=nbytes, phase="loss", **held, reserved=nbytes, device_bytes=nbytes, shares=())


@pytest.mark.parametrize(("fixed", "most"), [(100, 3), (0, 5), (1100, 6)])  # known; and not, the other way
@pytest.mark.parametrize("limit", range(0, 1400, 37))
def test_the_largest_micro_batch_is_that_of_trying_all(limit: int, fixed: int, most: int) -> None:
    asked = []

    def memory_of(size: int) -> Memory:
        asked.append(size)
        return of(100 + 20 * size, fixed)

    fitting = [size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48) if 100 + 20 * size <= limit]
    found = largest_micro_batch(memory_of, 48, limit)
    assert (found[0] if found else None) == (max(fitting) if fitting else None)
    assert len(asked) <= most and len(set(asked)) == len(asked)


@pytest.mark.parametrize("error", [-0.01, 0.0, 0.01])
@pytest.mark.parametrize("limit", range(0, 1400, 37))
def test_rough_bytes_leave_one_size_to_try_and_never_another_answer(limit: int, error: float) -> None:
    asked = []

    def memory_of(size: int) -> Memory:
        asked.append(size)
        return of(100 + 20 * size)

    fitting = [size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48) if 100 + 20 * size <= limit]
    found = largest_micro_batch(memory_of, 48, limit, lambda size: (1 + error) * (100 + 20 * size))
    assert (found[0] if found else None) == (max(fitting) if fitting else None)
    assert len(asked) <= 2
    far = all(abs(100 + 20 * size - limit) > 0.05 * limit for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48))
    assert len(asked) == 1 or not far


def test_changes_come_in_the_order_of_harm() -> None:
    def memory_of(recipe: Recipe, size: int) -> Memory:
        state = 100 if recipe.adapter else 400
        return of(state + size * (10 if recipe.train.activation_checkpointing else 50))

    recipe = recipe_of(model={"from": "none"}, train={"global_batch_size": 64})

    def changes(limit: int) -> dict[str, Any] | None:
        found = find_fit(recipe, memory_of, 64, 64, limit)
        return None if found is None else found.changes

    assert changes(10_000) == {}
    assert changes(2_000 + 100) == {"train.micro_batch_size": 32}
    assert changes(420) == {"train.micro_batch_size": 2, "train.activation_checkpointing": True}
    assert changes(300) == {
        "train.micro_batch_size": 16, "train.activation_checkpointing": True, "adapter.rank": 8,
        "adapter.targets": "all-linear",
    }  # fmt: skip
    assert changes(50) is None


def test_accumulation_keeps_the_samples_of_a_step() -> None:
    recipe = recipe_of(train={"global_batch_size": None, "micro_batch_size": 64, "accumulation": 1})
    found = find_fit(recipe, lambda recipe, size: of(size), 64, 64, 32)
    assert found is not None and found.changes == {"train.micro_batch_size": 32, "train.accumulation": 2}


def test_the_first_size_to_be_tried_fits_by_its_trace(make_recipe: Callable[..., Recipe]) -> None:
    plan = make_plan(make_recipe({"train.micro_batch_size": "auto"}))
    limit = memory_of(plan, 4).device_bytes
    assert [likely_micro_batch(plan, 8, most) for most in (limit, limit - 1, 10 * limit, 1)] == [4, 2, 8, 1]

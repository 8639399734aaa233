"""Steps, batches and micro-batches of a run, by arithmetic."""

from collections.abc import Callable

import pytest
import torch

from etude.errors import EtudeError, RecipeError
from etude.plan import make_plan
from etude.plan.length import choose_length, probe_micro_batch_size
from etude.recipe.schema import Recipe

Make = Callable[..., Recipe]


def test_the_steps_are_passes_over_the_samples_and_a_longer_warmup_is_refused(make_recipe: Make) -> None:
    plan = make_plan(make_recipe({"train.steps": None, "train.epochs": 3}))
    per_epoch = -(-len(plan.train) // 8)
    assert (plan.steps_per_epoch, plan.steps) == (per_epoch, 3 * per_epoch)
    late = make_recipe({"train.steps": None, "train.epochs": 1, "schedule.warmup_steps": per_epoch})
    with pytest.raises(RecipeError, match=f"this data gives {per_epoch} steps"):
        choose_length(late, plan.train, torch.device("cpu"))


def test_accumulation_makes_the_batch_of_all_ranks(make_recipe: Make) -> None:
    plan = make_plan(make_recipe())
    given = {"train.micro_batch_size": 3, "train.accumulation": 4, "train.global_batch_size": None}
    length = choose_length(make_recipe(given), plan.train, torch.device("cpu"))
    assert (length.global_batch_size, length.micro_batch_size) == (12, 3)


def test_the_probe_takes_the_largest_divisor_that_fits() -> None:
    tried = []

    def try_step(size: int) -> None:
        tried.append(size)
        if size > 4:
            raise torch.OutOfMemoryError

    assert probe_micro_batch_size(12, try_step) == 4 and tried == [12, 6, 4]
    tried.clear()
    assert probe_micro_batch_size(12, try_step, 6) == 4 and tried == [6, 4]
    with pytest.raises(EtudeError, match="one sample does not fit"):
        probe_micro_batch_size(12, lambda size: try_step(size + 4))

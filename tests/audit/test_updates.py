"""Settings that cannot train are found by arithmetic, and usual ones are not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.assemble import assemble
from etude.audit.updates import Updates, find_wrong_sizes
from etude.engine.world import World
from etude.plan import make_plan
from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.start import Options
from tests import bases, recipes

Make = Callable[..., Recipe]
LONG = {"train.steps": 200, "optim.learning_rate": 1e-3, "schedule.warmup_steps": 20}


def updates(recipe: Recipe, *, is_fresh: bool = True) -> tuple[Updates, dict[str, Finding]]:
    plan = make_plan(recipe)
    state, _ = assemble(plan, Options(), World(plan.device))
    found = find_wrong_sizes(plan, state, is_fresh=is_fresh)
    return Updates.of(plan, state, is_fresh=is_fresh), {each.kind: each for each in found}


def test_the_path_is_the_sum_of_the_rates_and_the_spread_that_of_new_weights(make_recipe: Make) -> None:
    constant = {**LONG, "schedule.kind": "constant"}
    sizes, found = updates(make_recipe(constant))
    assert sizes.path == pytest.approx(1e-3 * (180 + 21 / 2))  # a warm-up of 20 is worth 10.5 steps
    assert sizes.spread == pytest.approx(0.02, rel=0.2)
    assert found == {}
    cosine, _ = updates(make_recipe({**LONG, "train.steps": 40_000, "schedule.min_lr_ratio": 0.0}))
    assert cosine.path == pytest.approx(1e-3 * 40_000 / 2, rel=0.01)  # of thinned places


@pytest.mark.parametrize(
    ("changes", "kind", "keys"),
    [
        ({"optim.learning_rate": 0.1}, "rate_too_high", {"optim.learning_rate"}),
        ({"optim.learning_rate": 0.1, "schedule.warmup_steps": 0}, "rate_too_high", {"optim.learning_rate",
                                                                                     "schedule.warmup_steps"}),
        ({"optim.learning_rate": 4e-5}, "rate_too_low", {"optim.learning_rate"}),
        ({"optim.weight_decay": 30.0}, "decay_too_high", {"optim.weight_decay"}),
        ({"model.dropout": 0.9}, "dropout_too_high", {"model.dropout"}),
    ],
)  # fmt: skip
def test_what_cannot_train_is_named_and_its_remedy_can(
    make_recipe: Make, changes: dict[str, Any], kind: str, keys: set[str]
) -> None:
    recipe = make_recipe({**LONG, **changes})
    _, found = updates(recipe)
    assert set(found) == {kind} and found[kind].changes.keys() == keys
    _, again = updates(with_changes(recipe, found[kind].changes))
    assert again == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.learning_rate": 3e-3},
        {"optim.learning_rate": 1e-4},
        {"optim.kind": "muon", "optim.learning_rate": 0.05},
        {"train.steps": 10, "schedule.warmup_steps": 0, "optim.learning_rate": 1e-5},
        {"optim.weight_decay": 1.0},
        {"model.dropout": 0.5},
    ],
)
def test_what_people_use_is_left_alone(make_recipe: Make, changes: dict[str, Any]) -> None:
    assert updates(make_recipe({**LONG, **changes}))[1] == {}


def test_smoothing_that_hides_the_truth_is_named(tmp_path: Path) -> None:
    recipe = recipes.classification(bases.write_labelled(tmp_path / "rows.jsonl"))
    _, found = updates(with_changes(recipe, {"loss.label_smoothing": 0.9}))
    assert found["smoothing_too_high"].changes == {"loss.label_smoothing": 0.1}
    assert "smoothing_too_high" not in updates(with_changes(recipe, {"loss.label_smoothing": 0.2}))[1]


def test_trained_weights_may_move_little(make_recipe: Make) -> None:
    recipe = make_recipe({**LONG, "optim.learning_rate": 1e-5})
    assert set(updates(recipe)[1]) == {"rate_too_low"}
    assert updates(recipe, is_fresh=False)[1] == {}


def test_an_adapter_has_to_reach_the_weights_that_it_is_added_to(make_recipe: Make, tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path / "base")
    adapter = {
        "adapter": {"rank": 4, "alpha": 8.0},
        "model": {"from": str(base)},
        "tokenizer": {"from": str(base)},
    }
    recipe = make_recipe({**adapter, **LONG})
    sizes, found = updates(recipe, is_fresh=False)
    assert found == {} and sizes.strength == 2
    weak = with_changes(recipe, {"adapter.alpha": 8e-6})
    assert updates(weak, is_fresh=False)[1]["adapter_too_weak"].changes == {"adapter.alpha": 8.0}
    slow = with_changes(recipe, {"optim.learning_rate": 1e-9})
    found = updates(slow, is_fresh=False)[1]
    assert set(found) == {"rate_too_low"}
    changed = with_changes(slow, found["rate_too_low"].changes)
    assert updates(changed, is_fresh=False)[1] == {}


def test_the_reach_of_an_adapter_is_that_of_matrices_whose_updates_all_agree() -> None:
    draw = torch.Generator().manual_seed(1)
    rank, path, strength = 8, 3e-3, 2.0
    down = 0.07 * torch.randn(rank, 400, generator=draw)
    frozen = 0.05 * torch.randn(300, 400, generator=draw)
    up = path * torch.sign(torch.randn(300, rank, generator=draw))
    share = float((strength * up @ down).pow(2).mean().sqrt() / frozen.pow(2).mean().sqrt())
    assert share == pytest.approx(strength * path * 0.07 * math.sqrt(rank) / 0.05, rel=0.05)

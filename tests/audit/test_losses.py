"""A first loss, and tensors, that no healthy run has are named, each with figures."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from etude.assemble import assemble
from etude.audit import audit
from etude.audit.losses import FirstLoss, find_wrong_sum
from etude.engine.world import World
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from etude.start import Options
from tests import parallel

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("loss", "is_fresh", "says"),
    [
        (math.log(1000) + 0.4, True, None),
        (math.log(1000) + 2, True, "the first loss is worse than chance"),
        (math.log(1000) + 2, None, "the first loss is worse than chance"),
        (math.log(1000) - 2, True, "the first loss is too good for new weights"),
        (math.log(1000) - 2, None, None),
        (math.log(1000) - 2, False, "the first loss is too high for a trained model"),
        (3.0, False, None),
        (math.nan, True, None),
    ],
)
def test_the_first_loss_is_held_against_chance(loss: float, is_fresh: bool | None, says: str | None) -> None:
    found = list(FirstLoss(loss, 500, 1000, is_fresh, is_tokens=True).find())
    assert [each.what for each in found] == ([says] if says else [])
    if is_fresh is False:
        assert [each.severity for each in found] == (["info"] if says else [])
        (worse,) = FirstLoss(math.log(1000) + 0.1, 500, 1000, is_fresh, is_tokens=True).find()
        assert worse.severity == "warning"
        assert not list(FirstLoss(loss, 500, 1000, is_fresh, is_tokens=True, entropy=6.5).find())
    assert not list(FirstLoss(20.0, 20, 1000, is_fresh, is_tokens=True).find())


def test_a_first_loss_that_the_answers_explain_is_none_to_warn_of() -> None:
    high = math.log(1000) + 2
    for given in ({"outputs": 2000}, {"uncopied": high - 1}):
        assert not list(FirstLoss(high, 500, 1000, None, is_tokens=True, **given).find())  # type: ignore[arg-type]
        assert list(FirstLoss(high, 500, 1000, False, is_tokens=True, **given).find())  # type: ignore[arg-type]
        more = {name: value + 2 * (name == "uncopied") for name, value in given.items()}
        assert list(FirstLoss(high + 2, 500, 1000, None, is_tokens=True, **more).find())  # type: ignore[arg-type]


def test_a_sum_that_a_kernel_gets_wrong_is_named() -> None:
    assert not list(find_wrong_sum(100.0, 100.2, 50.0, 50.0))
    for loss, counted in ((110.0, 50.0), (100.0, 49.0)):
        (found,) = find_wrong_sum(100.0, loss, counted, 50.0)
        assert (found.kind, found.severity) == ("loss_mis_scaled", "error")


class Unused(parallel.Parallel):
    """A tensor that no loss reaches, and one that comes too late for the optimizer."""

    def __init__(self) -> None:
        super().__init__(512)
        self.idle = nn.Linear(4, 4)


def test_tensors_that_nothing_trains_are_named(make_recipe: Make) -> None:
    model = Unused()
    given = Options(model=model, loss=parallel.right)
    plan = make_plan(make_recipe(), own=given.own)
    model.head.requires_grad_(False)
    state, _ = assemble(plan, given, World(plan.device))
    model.head.requires_grad_(True)
    idle, late = audit(plan, state, given.own, is_fresh=None).findings
    assert (idle.kind, late.kind) == ("gradient_not_reaching", "trainable_not_stepped")
    assert idle.evidence.startswith("idle.weight, idle.bias of ")
    assert late.evidence.startswith("head.weight, head.bias of ")


def test_new_weights_that_are_too_large_or_know_too_much_are_named(make_recipe: Make) -> None:
    plan = make_plan(make_recipe())
    state, _ = assemble(plan, Options(), World(plan.device))
    with torch.no_grad():
        state.model.model.norm.weight.fill_(200.0)  # type: ignore[union-attr]
    assert [each.kind for each in audit(plan, state, is_fresh=True).findings] == ["first_loss_off"]

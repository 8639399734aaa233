"""Parts that are left whole: the costliest, no more than needed, and not most of a model."""

import pytest
import torch
from torch import nn

from etude.errors import FaultError
from etude.quantize.calibrate import Layer
from etude.quantize.sensitivity import choose_whole


class Parts(nn.Module):
    """Eight parts, each of two layers of one number."""

    def __init__(self) -> None:
        super().__init__()
        for index in range(8):
            self.add_module(f"part{index}", nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}))


def quantized(costs: list[float]) -> tuple[Parts, dict[str, Layer]]:
    """A model whose loss is 10 and half of the costs of each quantised layer, a weight of 1 being quantised."""
    model, nothing = Parts(), torch.zeros(1, 1)
    layers = {
        f"part{index}.{name}": Layer(nothing, nothing + 1, nothing, nothing)
        for index in range(len(costs))
        for name in "ab"
    }
    for name in layers:
        model.get_submodule(name).weight = nn.Parameter(nothing + 1)
    return model, layers


def loss_of(model: Parts, costs: list[float]) -> float:
    return 10 + sum(
        cost / 2 * model.get_parameter(f"part{index}.{name}.weight").item()
        for index, cost in enumerate(costs)
        for name in "ab"
    )


def test_the_costliest_part_stays_whole_and_the_rest_does_not() -> None:
    costs = [0.01, 0.02, 0.9, 0.03, 0.0, 0.0, -0.01, 0.0]
    model, layers = quantized(costs)
    kept, measured = choose_whole(model, layers, lambda: loss_of(model, costs), 0.02)
    assert sorted(kept) == ["part2.a", "part2.b"]
    assert measured["part2"] == pytest.approx(0.09) and measured["part6"] == pytest.approx(-0.001)
    left = {name for name in layers if float(model.get_parameter(f"{name}.weight")) == 0}
    assert left == set(kept)


def test_nothing_stays_whole_where_all_together_cost_little() -> None:
    costs = [0.01] * 8
    model, layers = quantized(costs)
    kept, _ = choose_whole(model, layers, lambda: loss_of(model, costs), 0.02)
    assert not kept and all(float(model.get_parameter(f"{name}.weight")) == 1 for name in layers)


def test_a_model_of_which_most_would_stay_whole_is_refused() -> None:
    costs = [1.0] * 8
    model, layers = quantized(costs)
    with pytest.raises(FaultError, match="of 8 parts would have to stay whole"):
        choose_whole(model, layers, lambda: loss_of(model, costs), 0.02)

"""Gradients of ranks are added up in buckets, in one order, while the last backward pass still runs."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from etude.engine.parallel import Replicas
from etude.engine.world import World

SIZES = (3, 4, 4, 2)
BUCKET_BYTES = 4 * 4 * 4  # of one matrix


class Doubling(World):
    """One of two ranks, whose other has the same gradients; `told` in the order of what happened."""

    told: list[str]

    def begin_exchange(self, flat: torch.Tensor) -> Callable[[], None]:
        self.told.append(f"{len(flat)} numbers")

        def wait() -> None:
            self.told.append("waited")
            flat.mul_(2)

        return wait


@pytest.fixture
def world() -> Doubling:
    made = Doubling(torch.device("cpu"), 0, 2)
    object.__setattr__(made, "told", [])
    return made


def make_model(world: Doubling) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(*sizes, bias=False) for sizes in itertools.pairwise(SIZES)]

    def tell(_: nn.Module, __: object, out: torch.Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda _: world.told.append("at the first layer"))

    layers[0].register_forward_hook(tell)
    return nn.Sequential(*layers)


def test_buckets_are_added_up_while_the_last_pass_runs_and_none_before(world: Doubling) -> None:
    model = make_model(world)
    parts = torch.randn(2, 5, SIZES[0], generator=torch.Generator().manual_seed(1))
    with Replicas(list(model.parameters()), world, BUCKET_BYTES) as replicas:
        model(parts[0]).square().sum().backward()
        assert world.told == ["at the first layer"]
        replicas.begin_last()
        model(parts[1]).square().sum().backward()
        assert world.told[1:] == ["8 numbers", "16 numbers", "at the first layer", "12 numbers"]
        replicas.finish()
    assert world.told[5:] == ["waited"] * 3
    found = [parameter.grad for parameter in model.parameters()]
    whole = torch.autograd.grad(model(parts.flatten(0, 1)).square().sum(), list(model.parameters()))
    for grad, due in zip(found, whole):
        assert grad is not None
        torch.testing.assert_close(grad, 2 * due)


def test_a_rank_without_gradients_joins_each_exchange_with_zeros(world: Doubling) -> None:
    model = make_model(world)
    with Replicas(list(model.parameters()), world, BUCKET_BYTES) as replicas:
        replicas.begin_last()
        model[2](torch.ones(1, SIZES[2])).sum().backward()  # which reaches the last layer alone
        assert world.told == ["8 numbers"]
        replicas.finish()
        assert world.told == ["8 numbers", "16 numbers", "12 numbers", *["waited"] * 3]
        assert [bool(each.grad.any()) for each in model.parameters() if each.grad is not None] == [
            False, False, True,
        ]  # fmt: skip
        world.told.clear()
        replicas.finish()  # of a step in which this rank had no sample
        assert world.told == ["8 numbers", "16 numbers", "12 numbers", *["waited"] * 3]
    world.told.clear()
    model(torch.ones(1, SIZES[0])).sum().backward()
    assert world.told == ["at the first layer"]


def test_parameters_of_other_dtypes_are_added_up_apart(world: Doubling) -> None:
    parameters = [nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    with Replicas(parameters, world) as replicas:
        replicas.begin_last()
        sum(each.sum() for each in parameters).backward()  # type: ignore[union-attr]
        replicas.finish()
    assert [each.grad.tolist() for each in parameters if each.grad is not None] == [[2, 2], [2, 2]]
    assert world.told[:2] == ["2 numbers", "2 numbers"]

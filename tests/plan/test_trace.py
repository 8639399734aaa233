"""A trace notes when each storage begins and ends, and in which phase and module."""

import torch
from torch import nn

from etude.plan.trace import FakeTensor, Trace, Tracer, fake_weights, tracing

CPU = torch.device("cpu")


def live(trace: Trace) -> int:
    return sum(trace.blocks[abs(event) - 1].nbytes * (1 if event > 0 else -1) for event in trace.events)


def test_views_share_a_storage_and_what_is_dropped_ends() -> None:
    tracer = Tracer(CPU)
    with tracing(tracer, nn.Identity()):
        x = torch.zeros(10, 10)
        view = x.T[2:]
        assert live(tracer.trace) == 400 and isinstance(view, FakeTensor)
        del x
        assert live(tracer.trace) == 400
        del view
        assert live(tracer.trace) == 0
        total = torch.ones(3).mul_(2).add_(1).sum()
        assert total.item() == 0.0 and live(tracer.trace) == 4


def test_phases_and_modules_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.ReLU())
    tracer = Tracer(CPU)
    with tracing(tracer, model):
        fake_weights(model, tracer, lambda name, tensor: tensor.dtype)
        assert [type(each) for each in model.parameters()] == [FakeTensor, FakeTensor]
        loss = model(torch.ones(2, 4)).square().sum()
        loss.backward()
        torch.ones(3)
    seen = {(block.phase, block.module) for block in tracer.trace.blocks}
    assert {("forward", "0"), ("forward", "1"), ("loss", ""), ("backward", ""), ("optimizer", "")} <= seen
    weights = [block for block in tracer.trace.blocks if block.kind == "weights"]
    gradients = [block for block in tracer.trace.blocks if block.kind == "gradients"]
    assert [block.nbytes for block in weights] == [64, 16]
    assert sorted(block.nbytes for block in gradients) == [16, 64]


def test_shared_weights_are_one_storage() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False, device="meta")})
    model["b"] = nn.Linear(4, 4, bias=False, device="meta")
    model["b"].weight = model["a"].weight
    tracer = Tracer(CPU)
    with tracing(tracer, model):
        fake_weights(model, tracer, lambda name, tensor: torch.bfloat16)
    assert model["a"].weight is model["b"].weight
    assert [block.nbytes for block in tracer.trace.blocks] == [32]


def test_numbers_of_ids_and_masks_are_known_as_models_look_at_them() -> None:
    ids = torch.tensor([[5, 3, 4], [7, 0, 0]])
    with tracing(Tracer(CPU), nn.Identity()):
        read = ids.to(CPU, copy=True)
        mask = read != 0
        assert not mask.all() and mask[:, 0].all() and int(mask.sum()) == 4
        parts = torch.split(read, [1, 2], dim=1)
        assert parts[1].max().item() == 4
        read[1] = 9
        assert (read != 0).all()
        read.mul_(torch.ones(()).long())  # made of what is not known
        assert read.max().item() == 0
    assert ids[1].tolist() == [7, 0, 0]


def test_what_a_kernel_takes_is_there_beside_its_results() -> None:
    tracer = Tracer(CPU, lambda func, args: 100 if func is torch.ops.aten.add.Tensor else 0)
    with tracing(tracer, nn.Identity()):
        x = torch.zeros(8)
        made = x + 1
    sizes = [
        tracer.trace.blocks[abs(event) - 1].nbytes * (1 if event > 0 else -1) for event in tracer.trace.events
    ]
    assert sizes[:4] == [32, 100, 32, -100] and made.shape == x.shape

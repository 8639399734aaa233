"""Autocast of a trace gives the dtypes of torch's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from etude.plan.trace import Tracer, tracing

CALLS: dict[str, Callable[[Tensor], Any]] = {
    "linear": lambda x: functional.linear(x, torch.ones(3, 8), torch.ones(3)),
    "matmul": lambda x: x @ torch.ones(8, 2),
    "bmm": lambda x: torch.bmm(x[None], x.T[None]),
    "layer norm": lambda x: functional.layer_norm(x.bfloat16(), (8,)),
    "softmax": lambda x: functional.softmax(x, -1),
    "sum": lambda x: x.bfloat16().sum(),
    "in place": lambda x: torch.ones(4, 2).addmm_(x, torch.ones(8, 2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_dtypes_are_those_of_autocast_on_a_cpu(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        real = CALLS[name](torch.ones(4, 8))
    with tracing(Tracer(torch.device("cpu")), torch.nn.Identity()), torch.autocast("cpu", torch.bfloat16):
        assert CALLS[name](torch.ones(4, 8)).dtype == real.dtype


def test_a_trained_weight_is_cast_once_a_forward() -> None:
    tracer = Tracer(torch.device("cpu"))
    with tracing(tracer, torch.nn.Identity()), torch.autocast("cpu", torch.bfloat16):
        weight = torch.nn.Parameter(torch.ones(8, 8))
        x = torch.ones(4, 8)
        made = [functional.linear(x, weight) for _ in range(3)]
    assert len(made) == 3
    assert sum(block.kind == "cast weights" for block in tracer.trace.blocks) == 1

"""Frozen layers of 4 bits in a trace: the bytes that they hold, and those that their products take.

Source: bitsandbytes 0.50, modules.py, functional.py and _functions.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.parts import find_targets

_BLOCK, _BLOCKS = 64, 256  # weights with one scale, and scales with one of their own


class FourBits(nn.Linear):
    """A linear layer whose weight is two numbers a byte, beside a byte a block and 4 for 256 blocks.

    A product takes the weight in the precision that is computed in, anew in the backward pass.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dtype = layer.in_features, layer.out_features, dtype
        count = layer.weight.numel()
        blocks = _up(count, _BLOCK)
        self.weight = nn.Parameter(_bytes((_up(count, 2), 1)), requires_grad=False)
        self.bias = layer.bias
        self.register_buffer("scales", _bytes((blocks,)))
        self.register_buffer("scales_of_scales", _bytes((4 * _up(blocks, _BLOCKS),)))

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.dtype)
        shape = self.out_features, self.in_features
        made: Tensor = _Product.apply(x.to(self.dtype), shape, bias)  # type: ignore[no-untyped-call]
        return made if torch.is_autocast_enabled(x.device.type) else made.to(x.dtype)


def quantize(model: nn.Module, dtype: torch.dtype) -> None:
    """Put stand-ins in the place of what `models.parts.quantize` makes, in a model of the meta device."""
    for name in find_targets(model, "all-linear"):
        layer = model.get_submodule(name)
        if type(layer) is nn.Linear:  # others are refused before a run
            model.set_submodule(name, FourBits(layer, dtype))


class _Product(torch.autograd.Function):
    """A product that keeps nothing, as the weight has no gradient and its 4 bits are there anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, int], bias: Tensor | None) -> Tensor:
        ctx.shape = shape
        return functional.linear(x, _read(x, shape), bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return slope @ _read(slope, ctx.shape), None, None


def _read(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """The weight as it is computed with, read by scales in fp32."""
    scales = torch.empty(_up(shape[0] * shape[1], _BLOCK), dtype=torch.float32, device=x.device)
    weight = torch.empty(shape, dtype=x.dtype, device=x.device)
    del scales
    return weight


def _bytes(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.uint8, device="meta")


def _up(count: int, unit: int) -> int:
    return -(-count // unit)

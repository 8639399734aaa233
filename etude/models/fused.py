"""Operations on elements that a GPU does in one pass over memory, and keeps less of for the gradients.

Elsewhere, and where torch.compile joins them itself, they are torch's own.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up; of gate and up, which have one shape, in one dtype."""
    if not has_kernels(gate):
        return functional.silu(gate) * up
    out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn the heads (B, T, H, D) to their positions, by cosine and signed sine (B or 1, T, 1, D) fp32.

    It is computed in fp32; dtype: of the result.
    """
    cos, sin = rotary
    if not has_kernels(x):
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin).to(dtype)
    out: Tensor = _Rotate.apply(x, cos, sin, dtype)  # type: ignore[no-untyped-call]
    return out


def has_kernels(x: Tensor) -> bool:
    """True for a tensor on a GPU where there is Triton, unless torch.compile makes kernels of its own."""
    return x.is_cuda and not torch.compiler.is_compiling() and has_triton()


@cache
def has_triton() -> bool:
    """True if Triton is installed, which torch for GPUs brings along but on Windows."""
    return find_spec("triton") is not None


class _SwiGLU(torch.autograd.Function):
    """silu is computed again for the gradients: kept, it is a third of what a feed-forward layer keeps."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        from .kernels import swiglu

        ctx.save_for_backward(gate, up)
        return swiglu(gate, up)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        from .kernels import swiglu_slopes

        gate, up = ctx.saved_tensors
        return swiglu_slopes(gate, up, slope)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        from .kernels import rotate

        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return rotate(x, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        from .kernels import rotate

        cos, sin = ctx.saved_tensors
        return rotate(slope, cos, sin, ctx.dtype, back=True), None, None, None

"""Triton kernels of the decoder: what torch does in many passes over memory, in one.

Importing this needs Triton; `etude.models.fused` decides where that is done.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK, _ROWS = 1024, 16


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up of two tensors of one shape and dtype, computed in fp32."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    if n := gate.numel():
        _swiglu[(triton.cdiv(n, _BLOCK),)](gate, up, out, n, BLOCK=_BLOCK)
    return out


def swiglu_slopes(gate: Tensor, up: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up from that of silu(gate) * up."""
    gate, up, slope = gate.contiguous(), up.contiguous(), slope.contiguous()
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
    if n := gate.numel():
        _swiglu_slopes[(triton.cdiv(n, _BLOCK),)](
            gate, up, slope, of_gate=of_gate, of_up=of_up, n=n, BLOCK=_BLOCK
        )
    return of_gate, of_up


def rotate(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype, *, back: bool = False) -> Tensor:
    """Heads (B, T, H, D) turned by tables (B or 1, T, 1, D) fp32 with a signed sine, in a dtype.

    back: turn them the other way, which is the gradient's way.
    """
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    out = torch.empty_like(x, dtype=dtype)
    H, D = x.shape[2:]
    if rows := x.numel() // D:
        _rotate[(triton.cdiv(rows, _ROWS),)](
            x, cos, sin, out, rows=rows, places=cos.numel() // D, H=H, HALF=D // 2,
            sign=-1.0 if back else 1.0, ROWS=_ROWS, WIDTH=triton.next_power_of_2(D // 2),
        )  # fmt: skip
    return out


# Triton knows no annotations but its own.
@triton.jit  # type: ignore[untyped-decorator]
def _swiglu(gate, up, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (g * tl.sigmoid(g) * u).to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _swiglu_slopes(gate, up, slope, of_gate, of_up, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(slope + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(of_gate + at, (dy * u * s * (1.0 + g * (1.0 - s))).to(of_gate.dtype.element_ty), mask=inside)
    tl.store(of_up + at, (dy * g * s).to(of_up.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _rotate(  # type: ignore[no-untyped-def]
    x, cos, sin, out, rows, places, H, HALF, sign, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (column < HALF)
    at = row * (2 * HALF) + column
    # The tables repeat for each row of tokens where all begin at the same place.
    turn = ((row // H) % places) * (2 * HALF) + column
    c = tl.load(cos + turn, mask=inside, other=0.0)
    s = tl.load(sin + turn + HALF, mask=inside, other=0.0) * sign
    first = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + at + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (first * c - second * s).to(out.dtype.element_ty), mask=inside)
    tl.store(out + at + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=inside)

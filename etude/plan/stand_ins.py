"""Functions that stand in for kernels of a device in a trace."""

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.cuda.amp.common
from torch import Tensor
from torch.nn import functional

from etude.engine import cross_entropy
from etude.models import fused

_ATEN = torch.ops.aten
_HALVES = (torch.bfloat16, torch.float16)


def attend(
    device: torch.device,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """scaled_dot_product_attention by the operation that the device would take."""
    if attn_mask is not None and attn_mask.dtype == torch.bool and query.dtype != torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    settings = {"dropout_p": dropout_p, "is_causal": is_causal, "enable_gqa": enable_gqa}
    chosen = _choose(device, (query, key, value), attn_mask, settings)
    made: Tensor
    if chosen == "flash" and device.type == "cpu":
        made, _ = _ATEN._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )
    elif chosen == "flash":
        made, *_ = _ATEN._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, return_debug_mask=False, scale=scale
        )
    elif chosen == "efficient":
        made, *_ = _ATEN._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, True, dropout_p=dropout_p, is_causal=is_causal, scale=scale
        )
    else:
        with torch._C.DisableTorchFunction():
            made = functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
    return made


def norm(x: Tensor, shape: Any, weight: Tensor, eps: float | None = None) -> Tensor:
    """rms_norm by the kernel of a GPU, which keeps what it was given and one number a row."""
    made: Tensor = _Norm.apply(x, weight)  # type: ignore[no-untyped-call]
    return made


class _Norm(torch.autograd.Function):
    """torch without CUDA takes many operations for its fused norm, also for the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


def _choose(
    device: torch.device, heads: tuple[Tensor, ...], mask: Tensor | None, settings: dict[str, Any]
) -> str:
    q, k, _ = heads
    if device.type == "cpu":
        with torch._C._DisableTorchDispatch():
            real = [None if x is None else _like(x) for x in (*heads, mask)]
            number = _ATEN._fused_sdp_choice(*real, **settings)
        return "flash" if number == 1 else "math"
    if mask is None and q.dtype in _HALVES and q.shape[-1] <= 256:
        return "flash"
    return "efficient" if q.shape[1] == k.shape[1] else "math"


def _like(x: Tensor) -> Tensor:
    """A tensor of the CPU with the shape of a fake one, whose memory is never written."""
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cpu")
    return made.requires_grad_(x.requires_grad) if x.is_floating_point() else made


@contextlib.contextmanager
def standing_in(device: torch.device) -> Iterator[None]:
    """Let code for a GPU run where there is none: autocast, its clock, and what is written in Triton."""
    if device.type != "cuda":
        yield
        return
    changes = [
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda *settings, **named: True),
        (torch.cuda, "Event", _Event),
        (cross_entropy, "has_triton", lambda: True),
        (fused, "has_triton", lambda: True),
    ]
    before = [getattr(owner, name) for owner, name, _ in changes]
    modules = {name: sys.modules.get(name) for name in _TRITON}
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        sys.modules.update(_TRITON)  # type: ignore[arg-type]
        yield
    finally:
        for (owner, name, _), value in zip(changes, before):
            setattr(owner, name, value)
        for name, module in modules.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Event:
    """A moment of a GPU's clock that nobody reads."""

    def __init__(self, **settings: bool) -> None: ...

    def record(self) -> None: ...


def _sum_losses(logits: Tensor, *settings: Any, **named: Any) -> Tensor:
    return torch.empty(len(logits), dtype=torch.float32, device=logits.device).sum()


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    return torch.empty_like(gate)


def _swiglu_slopes(gate: Tensor, up: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    gate, up, slope = gate.contiguous(), up.contiguous(), slope.contiguous()
    return torch.empty_like(gate), torch.empty_like(up)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype, *, back: bool = False) -> Tensor:
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    return torch.empty_like(x, dtype=dtype)


# Modules that import Triton, with functions that take and give the memory of theirs.
_TRITON = {
    "etude.engine.softmax_kernel": SimpleNamespace(sum_losses=_sum_losses),
    "etude.models.kernels": SimpleNamespace(swiglu=_swiglu, swiglu_slopes=_swiglu_slopes, rotate=_rotate),
}

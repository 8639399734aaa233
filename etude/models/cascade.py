"""Causal attention in parts, each over a stretch of keys, so that a prefix of many samples is there once.

Each part is one pass of the fused kernel without a mask; what a query finds in several is merged by their
sums of exponentials. Backward, each part gets the merged output and sum, with which the kernel's own formula
gives its share of the gradient, as ring attention does it (arXiv:2310.01889).

K passes side by side, Q queries, T tokens, H heads (of queries, or fewer of keys and values), D head_dim
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etude.prefixes import Part

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_parts(q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part]) -> Tensor:
    """Attention of (K, Q, H, D) queries over (K, T, H, D) keys and values in parts; returns (K, Q, H, D).

    The first part of each query is causal. On a CPU only.
    """
    out: Tensor = _Cascade.apply(q, k, v, parts)  # type: ignore[no-untyped-call]
    return out


class _Cascade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Part]) -> Tensor:
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))  # (K, H, T, D)
        wide = torch.promote_types(q.dtype, torch.float32)
        merged = torch.empty_like(q, dtype=wide)
        sums = q.new_empty(q.shape[:-1], dtype=wide)  # logarithms of the sums of exponentials
        for part in parts:
            found, its_sums = _attend(*_cut(part, q, k, v), is_causal=part.is_causal)
            out, before = merged[:, :, part.first : part.end], sums[:, :, part.first : part.end]
            if part.is_causal:
                out.copy_(found)
                before.copy_(its_sums)
                continue
            both = torch.logaddexp(before, its_sums)
            out.mul_((before - both).exp_()[..., None]).addcmul_(found, (its_sums - both).exp_()[..., None])
            before.copy_(both)
        merged = merged.type_as(q)
        ctx.save_for_backward(q, k, v, merged, sums)
        ctx.parts = parts
        return merged.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, merged, sums = ctx.saved_tensors
        slope = slope.transpose(1, 2)
        grads = [torch.zeros_like(heads) for heads in (q, k, v)]
        for part in ctx.parts:
            queries = slice(part.first, part.end)
            shares = _attend_back(
                slope[:, :, queries], *_cut(part, q, k, v), merged[:, :, queries], sums[:, :, queries], 0.0,
                part.is_causal,
            )  # fmt: skip
            for whole, share in zip(_cut(part, *grads), shares):
                whole.add_(share)
        q, k, v = (heads.transpose(1, 2) for heads in grads)
        return q, k, v, None


def _cut(part: Part, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values of a part, without copies."""
    keys = slice(part.low, part.high)
    return q[:, :, part.first : part.end], k[:, :, keys], v[:, :, keys]

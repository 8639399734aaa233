"""Softmax, loss and slope of logits in one Triton kernel: read twice and written once, in half precision.

The steps of torch pass over a chunk of logits in fp32 some ten times. Method: online softmax,
arXiv:1805.02867; slopes in the place of the logits as in Liger kernel, arXiv:2410.10989.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


def sum_losses(
    logits: Tensor, V: int, target: Tensor, share: Tensor | None, smoothing: float, *, with_slope: bool
) -> Tensor:
    """Sum of the losses of logits (rows, at least V) of a GPU, () fp32; slopes take their place if asked.

    target (rows, 1) int64, share (rows, 1) fp32 or all are 1. Columns from V on are left as they are.
    """
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if len(logits):
        _softmax[(len(logits),)](
            logits, target, losses if share is None else share, losses, stride=logits.stride(0), V=V,
            smoothing=smoothing, WITH_SHARE=share is not None, WITH_SLOPE=with_slope, BLOCK=_BLOCK,
            num_warps=8,
        )  # fmt: skip
    return losses.sum()


# Triton knows no annotations but its own.
@triton.jit  # type: ignore[untyped-decorator]
def _softmax(  # type: ignore[no-untyped-def]
    logits, targets, shares, losses, stride, V, smoothing,
    WITH_SHARE: tl.constexpr, WITH_SLOPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    share = 1.0
    if WITH_SHARE:
        share = tl.load(shares + row)
    columns = tl.arange(0, BLOCK)
    top, total, plain_sum = float("-inf"), 0.0, 0.0
    for start in range(0, V, BLOCK):
        inside = start + columns < V
        x = tl.load(logits + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(x))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher))
        plain_sum += tl.sum(tl.where(inside, x, 0.0))
        top = higher
    right = (1.0 - smoothing) * tl.load(logits + target).to(tl.float32) + smoothing * plain_sum / V
    tl.store(losses + row, (tl.log(total) + top - right) * share)
    if WITH_SLOPE:
        for start in range(0, V, BLOCK):
            inside = start + columns < V
            x = tl.load(logits + start + columns, mask=inside, other=0.0).to(tl.float32)
            slope = tl.exp(x - top) / total - smoothing / V
            slope = tl.where(start + columns == target, slope - (1.0 - smoothing), slope) * share
            tl.store(logits + start + columns, slope.to(logits.dtype.element_ty), mask=inside)

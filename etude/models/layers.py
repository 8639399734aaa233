"""Layers that several families are made of."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, statistics in fp32. Source: arXiv:1910.07467."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape (..., width) to the same, in the dtype of the weight."""
        x = x.type_as(self.weight)  # under autocast queries and keys arrive in half precision
        if x.device.type != "cpu":
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        # There is no fused kernel on CPU, and this takes fewer passes over memory: a training step of 4
        # blocks of width 320 with QK-norm takes 1.40 s instead of 1.58 (medians, 2 cores, torch 2.13).
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        mean_square = size.square() / x.shape[-1]
        normed: Tensor = (x * (mean_square + self.eps).rsqrt()).type_as(x)
        return normed * self.weight


def embedding(rows: int, width: int, padding: int | None = None) -> nn.Embedding:
    """An embedding without first weights: drawn on the meta device they would load torch's compiler (1 s)."""
    weights = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(weights, freeze=False, padding_idx=padding)  # type: ignore[no-untyped-call,no-any-return]


def run_block(block: nn.Module, x: Tensor, shared: Any, *, recompute: bool) -> Tensor:
    """block(x, shared); `recompute`: keep only x for the gradients, and compute the rest again the same."""
    if recompute:
        return checkpoint(block, x, shared, use_reentrant=False, preserve_rng_state=True)  # type: ignore[no-any-return]
    out: Tensor = block(x, shared)
    return out


@torch.no_grad()
def draw(parameter: nn.Parameter, std: float, generator: torch.Generator) -> None:
    """Fill a parameter with normal numbers, the same on every device."""
    drawn = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
    parameter.copy_(drawn.normal_(std=std, generator=generator))

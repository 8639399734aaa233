"""Layers that several families are made of."""

from collections.abc import Iterable
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


def can_recompute(model: nn.Module) -> bool:
    """True if a model can compute activations again: etude's own, and most of transformers."""
    is_own = any(hasattr(module, "checkpoint_activations") for module in model.modules())
    return is_own or bool(getattr(model, "supports_gradient_checkpointing", False))


def set_recompute(model: nn.Module, on: bool) -> None:
    """Let a model compute activations again for the gradients, or keep them; the numbers are the same."""
    own: list[Any] = [module for module in model.modules() if hasattr(module, "checkpoint_activations")]
    for module in own:
        module.checkpoint_activations = on
    if not own and on:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    elif not own:
        model.gradient_checkpointing_disable()  # type: ignore[operator]


def draw(shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    """Normal numbers of a shape in fp32, the same on every device."""
    return torch.empty(shape, dtype=torch.float32, device="cpu").normal_(std=std, generator=generator)


@torch.no_grad()
def fill(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy weights into a model by name, as they come."""
    parameters = dict(model.named_parameters())
    for name, weight in weights:
        parameters[name].copy_(weight)

"""The turn of each pair of dimensions from position to position, also beyond the original context."""

import math

import torch
from torch import Tensor

from etude.models.decoder_config import RopeScaling


def inverse_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, device: torch.device | None = None
) -> Tensor:
    """Angle by which each pair of dimensions turns from one position to the next, (head_dim / 2,) fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = 1.0 / (theta**exponents)
    if scaling is None:
        return plain
    slowed = plain / scaling.factor
    if scaling.kind == "linear":
        return slowed
    if scaling.kind == "llama3":
        turns = scaling.original_context * plain / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    else:
        first, last = (
            _dimension_of(turns, head_dim, theta, scaling) for turns in (scaling.beta_fast, scaling.beta_slow)
        )
        if scaling.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, head_dim - 1)
        place = torch.arange(head_dim // 2, dtype=torch.float32, device=device)
        kept = 1 - ((place - first) / (last - first if last > first else 0.001)).clamp(0, 1)
    return plain * kept + slowed * (1 - kept)


def _dimension_of(turns: float, head_dim: int, theta: float, scaling: RopeScaling) -> float:
    """The pair of dimensions that makes so many turns within the original context."""
    return head_dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

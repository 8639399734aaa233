"""Values of many tensors at once, as whoever asks a device makes it wait."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, Floats]:
    """Values of tensors of one device as arrays of their shapes, by one transfer."""
    if not tensors:
        return {}
    # In the widest of their types: not every device has float64.
    flat = torch.cat([each.detach().reshape(-1) for each in tensors.values()]).cpu().double().numpy()
    values, low = {}, 0
    for name, each in tensors.items():
        values[name] = flat[low : low + each.numel()].reshape(tuple(each.shape))
        low += each.numel()
    return values

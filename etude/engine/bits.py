"""Numbers for the bits of tensors, by which a change of any bit is seen."""

import torch
from torch import Tensor


def fingerprints(tensors: dict[str, Tensor]) -> dict[str, int]:
    """A number for the bits of each tensor, from one pass over it."""
    if not tensors:
        return {}
    sums = torch.stack([_sum_bits(each.detach()) for each in tensors.values()])
    return dict(zip(tensors, sums.tolist()))


def _sum_bits(tensor: Tensor) -> Tensor:
    """Sum of the bits of a tensor as the widest integers that fill it, (); it wraps."""
    flat = tensor.contiguous().view(-1)
    for dtype in (torch.int64, torch.int32, torch.int16):
        if flat.numel() * flat.element_size() % dtype.itemsize == 0 and flat.numel():
            # Not in int64 where bits are narrower: that takes 25 times as long on a CPU.
            return flat.view(dtype).sum(dtype=dtype).long()
    return flat.view(torch.uint8).sum()

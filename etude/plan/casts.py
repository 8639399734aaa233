"""Autocast for tensors that are not on a device: torch's own looks for one.

Source: aten/src/ATen/autocast_mode.h, its lists of operations in lower precision and in fp32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_LOWER = {
    F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.einsum,
    torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm, torch.bmm,
    Tensor.bmm, torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.mv, Tensor.mv,
    F.scaled_dot_product_attention,
}  # fmt: skip
# On a GPU only: a CPU computes these in the precision that they get.
_FP32 = {
    F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, Tensor.log_softmax,
    torch.log_softmax, F.cross_entropy, F.nll_loss, Tensor.pow, torch.pow, Tensor.rsqrt, torch.rsqrt,
    Tensor.exp, torch.exp, Tensor.log, torch.log, Tensor.cumsum, torch.cumsum, Tensor.sum, torch.sum,
    Tensor.prod, torch.prod, Tensor.norm, torch.norm, F.softplus, torch.cdist,
    F.binary_cross_entropy_with_logits,
}  # fmt: skip


class Casts:
    """The casts of autocast to the arguments of a call, of trained weights once a forward."""

    def __init__(self, device: torch.device) -> None:
        self._device = device.type
        self._cached: dict[Tensor, Tensor] = {}

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments as the operation gets them."""
        is_lower = func in _LOWER
        if not (is_lower or (self._device == "cuda" and func in _FP32)):
            return args, kwargs
        if not torch.is_autocast_enabled(self._device):
            return args, kwargs
        dtype = torch.get_autocast_dtype(self._device) if is_lower else torch.float32
        return self._cast(args, dtype), {name: self._cast(value, dtype) for name, value in kwargs.items()}

    def clear(self) -> None:
        """Forget the weights, as at the end of a forward."""
        self._cached.clear()

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._cast(each, dtype) for each in value)
        if (
            not isinstance(value, Tensor)
            or not value.is_floating_point()
            or value.dtype in (dtype, torch.float64)
        ):
            return value
        if value in self._cached:
            return self._cached[value]
        with torch._C.DisableTorchFunction():
            made = value.to(dtype)
        if value.is_leaf and value.requires_grad and value.dtype == torch.float32:
            self._cached[value] = made
        return made

"""Number formats: which to compute in, and the loss scaling that fp16 needs."""

import contextlib
from dataclasses import dataclass

import torch

from etude.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by train.precision
_GROWTH_STEPS = 2000
_SMALLEST_SCALE = 2.0**-30  # 0 would never grow again


@dataclass
class Precision:
    """Computes in `dtype` over fp32 weights. For fp16 the loss is scaled so that small gradients survive.

    The scale halves after a step whose loss was finite and its gradient not, and doubles after 2,000 good
    ones; it stays on the device. It has no part in a loss that is not finite, so that does not change it.

    Source: Micikevicius et al. 2018, Mixed Precision Training.
    """

    name: str
    dtype: torch.dtype
    device: torch.device
    scale: torch.Tensor
    good_steps: torch.Tensor
    of_mean: float = 1.0  # the scale of a mean loss over this one: the targets of a step, as a power of two

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def update(self, skipped: torch.Tensor, loss: torch.Tensor) -> None:
        """Adapt the scale to a step: `skipped`, bool (), and its loss, (), on the device."""
        if self.dtype != torch.float16:
            return
        self.good_steps.copy_(torch.where(skipped, 0, self.good_steps + 1))
        grown, is_too_large = self.good_steps >= _GROWTH_STEPS, skipped & loss.isfinite()
        factor = torch.where(is_too_large, 0.5, torch.where(grown, 2.0, 1.0))
        self.scale.mul_(factor).clamp_(min=_SMALLEST_SCALE)
        self.good_steps.copy_(torch.where(grown, 0, self.good_steps))

    def state(self) -> dict[str, float]:
        return {"scale": float(self.scale), "good_steps": float(self.good_steps)}

    def load_state(self, state: dict[str, float]) -> None:
        self.scale.fill_(state["scale"])
        self.good_steps.fill_(state["good_steps"])


def choose_precision(wanted: str, device: torch.device, *, targets_per_step: int) -> Precision:
    """The precision a recipe asks for; auto is bf16 where the device computes it natively, else fp32.

    The first fp16 scale is 2^16 for a mean loss; losses are summed here: it is divided by a step's targets.

    Raises: InputError for bf16 on a device that only emulates it.
    """
    native = has_native_bf16(device)
    if wanted == "auto":
        wanted = "bf16" if native else "fp32"
    if wanted == "bf16" and not native:
        slow = f"which this {device.type} only emulates, many times slower"
        raise InputError(f'train.precision is "bf16", {slow}; try "fp32"')
    dtype = DTYPES[wanted]
    of_mean = 2.0 ** (targets_per_step - 1).bit_length()
    scale = 2.0**16 / of_mean if wanted == "fp16" else 1.0
    scale_of, good_steps = (torch.tensor(value, device=device) for value in (scale, 0.0))
    return Precision(wanted, dtype, device, scale_of, good_steps, of_mean)


def has_native_bf16(device: torch.device) -> bool:
    """True if the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:
        return False

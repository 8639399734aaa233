"""Published rates of GPUs and of their links, and the share of them that training has reached."""

import difflib
from dataclasses import dataclass

from etude.errors import InputError
from etude.links import PCIE3, PCIE4, PCIE5, Link
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Gpu:
    """A GPU by its datasheet: dense operations a second, without sparsity, by number format.

    half  bf16 and fp16 with sums in fp32; where has_bf16 is false, fp16 alone
    full  fp32 without tensor cores
    link  to the others of its machine
    """

    title: str
    memory_bytes: int
    half: float
    full: float
    source: str
    link: Link
    has_bf16: bool = True

    def choose_precision(self, wanted: str) -> str:
        """The number format that a recipe's train.precision means there. Raises: InputError."""
        if wanted == "bf16" and not self.has_bf16:
            raise InputError(f'an {self.title} has no bf16, which train.precision asks for; use "fp16"')
        return ("bf16" if self.has_bf16 else "fp32") if wanted == "auto" else wanted

    def peak(self, precision: str) -> float:
        """Operations a second at best."""
        return self.full if precision == "fp32" else self.half


_ADA = "NVIDIA Ada GPU architecture whitepaper 2.02"
_HOPPER = "NVIDIA H100 whitepaper 1.04, table 2"
_V100, _A100, _H200 = (f"NVIDIA {name} datasheet" for name in ("V100", "A100", "H200"))
_NVLINK2, _NVLINK3 = Link("NVLink 2", 150e9, _V100), Link("NVLink 3", 300e9, _A100)
_NVLINK4 = Link("NVLink 4", 450e9, "NVIDIA H100 datasheet")
GPUS = {
    "h200": Gpu("NVIDIA H200 SXM", 141 * 10**9, 989.4e12, 66.9e12, f"{_H200}, sparsity halved", _NVLINK4),
    "h100": Gpu("NVIDIA H100 SXM", 80 * 10**9, 989.4e12, 66.9e12, _HOPPER, _NVLINK4),
    "h100-pcie": Gpu("NVIDIA H100 PCIe", 80 * 10**9, 756e12, 51.2e12, _HOPPER, PCIE5),
    "a100": Gpu("NVIDIA A100 80 GB", 80 * 10**9, 312e12, 19.5e12, _A100, _NVLINK3),
    "a100-40gb": Gpu("NVIDIA A100 40 GB", 40 * 10**9, 312e12, 19.5e12, _A100, _NVLINK3),
    "l40s": Gpu("NVIDIA L40S", 48 * 10**9, 362e12, 91.6e12, "NVIDIA L40S datasheet, sparsity halved", PCIE4),
    "l4": Gpu("NVIDIA L4", 24 * 10**9, 121e12, 30.3e12, "NVIDIA L4 datasheet, sparsity halved", PCIE4),
    "a10": Gpu("NVIDIA A10", 24 * 10**9, 125e12, 31.2e12, "NVIDIA A10 datasheet", PCIE4),
    "v100": Gpu("NVIDIA V100 SXM2", 32 * 10**9, 125e12, 15.7e12, _V100, _NVLINK2, has_bf16=False),
    "t4": Gpu("NVIDIA T4", 16 * 10**9, 65e12, 8.1e12, "NVIDIA T4 datasheet", PCIE3, has_bf16=False),
    "rtx4090": Gpu("NVIDIA RTX 4090", 24 * 10**9, 165.2e12, 82.6e12, f"{_ADA}, sums in fp32", PCIE4),
    "rtx3090": Gpu(
        "NVIDIA RTX 3090", 24 * 10**9, 71e12, 35.6e12, "NVIDIA GA102 whitepaper 2, sums in fp32", PCIE4
    ),
}
# Measured on an H100 (benchmarks/results/gpu.json): a decoder of 300M parameters, the same compiled, and
# LoRA on one of 1.5B with packed rows. Small models and short rows reach less, so the interval is wide.
_EAGER, _COMPILED, _ADAPTED, _FULL = 0.236, 0.37, 0.4, 0.5
SHARE_INTERVAL = (0.6, 2.0)


def find_gpu(name: str) -> Gpu:
    """A GPU by its name. Raises: InputError that offers the nearest."""
    key = name.lower().replace("nvidia", "").replace(" ", "").replace("_", "-").strip("-")
    if key in GPUS:
        return GPUS[key]
    near = difflib.get_close_matches(key, GPUS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"--gpu: no GPU is called {name[:40]!r}; {hint}there are {', '.join(GPUS)}")


def usual_share(recipe: Recipe, precision: str) -> float:
    """The share of the published rate that a step usually reaches."""
    if precision == "fp32":
        return _FULL
    if recipe.adapter is not None:
        return _ADAPTED
    return _COMPILED if recipe.train.compile else _EAGER

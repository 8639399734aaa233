"""The device that a run trains on: chosen, held against what this torch was built for, and described."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from etude.engine.precision import has_native_bf16
from etude.errors import InputError
from etude.records.environment import describe_machine
from etude.text import rough_size, shorten

# Of the notebooks that a platform runs, with what it states of itself.
_PLATFORMS = {"KAGGLE_KERNEL_RUN_TYPE": "Kaggle", "COLAB_RELEASE_TAG": "Colab"}


def choose_device(wanted: str) -> torch.device:
    """The device a recipe asks for; auto takes cuda, else mps, else cpu.

    Raises: InputError if it is not there, or this torch has no programs for it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    # Read at the first product. In bf16 oneDNN keeps 9 MB for each length of a batch, of 1,024 lengths: 100
    # packed steps of a tiny decoder took 1,390 MB so, and 880 at the same speed with this limit.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if wanted == "auto":
        wanted = next(kind for kind, there in available.items() if there)
    if not available[wanted]:
        have = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(
            f'train.device is "{wanted}", but this machine and this torch have {have}; try "auto"'
        )
    if wanted == "cuda" and not runs_on(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
        raise InputError(
            f"{shorten(torch.cuda.get_device_name(), 60)} is there, but torch {torch.__version__} has no "
            f"programs for it ({', '.join(torch.cuda.get_arch_list())}); take another GPU, a torch that was "
            'built for this one, or train.device = "cpu"'
        )
    return torch.device(wanted)


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """True if programs of these architectures run on a GPU of a compute capability.

    Machine code (sm) runs on its major version from its minor version on; code that the driver translates
    (compute) on all later ones. None known is taken as able, as for ROCm, which names them otherwise.

    Source: https://docs.nvidia.com/cuda/cuda-compiler-driver-nvcc/#gpu-feature-list
    """
    known = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", each) for each in architectures]
    parts = [(each[1], int(each[2]), int(each[3]), each[4]) for each in known if each]
    return not parts or any(
        capability == (major, minor)
        or (not only and kind == "sm" and capability[0] == major and capability[1] >= minor)
        or (not only and kind == "compute" and capability >= (major, minor))
        for kind, major, minor, only in parts
    )


def device_name(device: torch.device) -> str:
    """The type of a GPU, or of the processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return str(describe_machine()["cpu"] or device.type)


def describe_place(device: torch.device, folder: Path) -> str:
    """The machine for a reader: platform, GPUs or cores, memory, free disk of a folder, no native bf16."""
    machine = describe_machine(folder)
    parts = [name for variable, name in _PLATFORMS.items() if os.environ.get(variable)]
    gpus = [f"{gpu['name']} of {rough_size(gpu['memory_bytes'])}" for gpu in machine["gpus"]]
    if device.type == "cuda" and gpus:
        native = "" if has_native_bf16(device) else " without native bf16"
        parts += [
            f"{len([each for each in gpus if each == gpu])} x {gpu}{native}" for gpu in dict.fromkeys(gpus)
        ]
    elif machine["cores"]:
        parts.append(f"{machine['cores']} cores")
    memory, disk = rough_size(machine["memory_bytes"]), rough_size(machine["disk_free_bytes"])
    return ", ".join([*parts, f"{memory} of memory", f"{disk} of disk free"])

"""The way that weights, gradients and optimizer state lie over ranks: chosen by what a rank would hold."""

from dataclasses import dataclass

import torch

from etude.engine.out_of_memory import capacity
from etude.recipe.schema import Recipe
from etude.text import rough_size

_MOST_SHARE = 0.5  # of the memory for what each rank holds whole; the rest is for activations
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of a frozen number


@dataclass(frozen=True)
class Parallel:
    """A choice, replicate or shard, and the reason for it in words."""

    kind: str
    why: str


def choose_parallel(
    recipe: Recipe, *, parameters: int, trainable: int, device: torch.device, precision: str,
    room: int | None = None,
) -> Parallel:  # fmt: skip
    """The choice of `train.parallel`; "auto" shards what would take over half of the memory of a rank.

    room: bytes of a device that is not here.
    """
    train = recipe.train
    if train.parallel != "auto":
        return Parallel(train.parallel, "as train.parallel says")
    if train.devices == 1:
        return Parallel("replicate", "one rank")
    if room is None and device.type == "cuda" and not torch.cuda.is_available():
        return Parallel("replicate", "there is no GPU to ask for its memory")
    moments = 1 if recipe.optim.kind == "muon" else 2
    held = _BYTES[precision] * (parameters - trainable) + 4 * (2 + moments) * trainable
    if room is None:
        room = capacity(device) // (train.devices if device.type == "cpu" else 1)
    why = f"weights, gradients and optimizer state are {rough_size(held)}, a rank has {rough_size(room)}"
    cannot = "compile" if train.compile else "model.quantize" if recipe.model.quantize else None
    if held > _MOST_SHARE * room and not cannot:
        return Parallel("shard", why)
    return Parallel("replicate", f"{why}; {cannot} keeps them whole" if cannot else why)

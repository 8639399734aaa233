"""The length of a run: samples of a step and of a micro-batch, and the number of steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from etude.data.loader import steps_per_epoch
from etude.data.mixture import Mixture
from etude.data.samples.sample import Samples
from etude.errors import EtudeError, RecipeError
from etude.recipe.schema import Recipe
from etude.text import plural, verb

# Enough rows to keep two to sixteen cores busy, few enough for their activations to stay near the caches.
_CPU_MICRO_BATCH_TOKENS = 4096
ONE_TOO_MANY = (
    "one sample does not fit into the device's memory; use activation_checkpointing, a shorter seq_len or a "
    "smaller model"
)


@dataclass(frozen=True, kw_only=True)
class Length:
    """Samples and steps of a run over all ranks; a micro-batch is one rank's, None if it is to be probed."""

    global_batch_size: int
    micro_batch_size: int | None
    steps_per_epoch: int
    steps: int


def choose_length(recipe: Recipe, samples: Samples | Mixture, device: torch.device) -> Length:
    """The length that a recipe asks for with these samples. Raises: RecipeError if it does not fit."""
    train = recipe.train
    micro = train.micro_batch_size
    if isinstance(micro, int) and train.accumulation is not None:
        global_batch_size = micro * train.accumulation * train.devices
    else:
        assert train.global_batch_size is not None
        global_batch_size = train.global_batch_size
    if micro == "auto" and device.type == "cpu":
        per_rank = global_batch_size // train.devices
        most = max(int(_CPU_MICRO_BATCH_TOKENS / samples.tokens_per_sample), 1)
        micro = max(size for size in range(1, min(most, per_rank) + 1) if per_rank % size == 0)
    if train.devices > len(samples):
        there = f"there {verb(len(samples), 'are')} {plural(len(samples), 'training sample')}"
        raise RecipeError([f"train.devices is {train.devices}, but {there}; use {len(samples)} at most"])
    per_epoch = steps_per_epoch(len(samples), global_batch_size)
    steps = train.steps or (train.epochs or 0) * per_epoch
    if recipe.schedule.warmup_steps >= steps:
        raise RecipeError(
            [
                f"schedule.warmup_steps is {recipe.schedule.warmup_steps} but this data gives {steps} steps "
                f"({train.epochs} x {per_epoch}); expected fewer; try {max(steps // 10, 1) - (steps <= 1)}, "
                "or more epochs"
            ]
        )
    return Length(
        global_batch_size=global_batch_size,
        micro_batch_size=micro if isinstance(micro, int) else None,
        steps_per_epoch=per_epoch,
        steps=steps,
    )


def probe_micro_batch_size(per_rank: int, try_step: Callable[[int], None], first: int | None = None) -> int:
    """The largest divisor of a rank's samples, `first` at most, whose step fits into the device's memory.

    `try_step(size)` runs one forward and backward pass. Raises: EtudeError if a single sample does not fit.
    """
    for size in (size for size in range(first or per_rank, 0, -1) if per_rank % size == 0):
        try:
            try_step(size)
            return size
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise EtudeError(ONE_TOO_MANY)

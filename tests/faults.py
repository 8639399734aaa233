"""An allocator that fails once: at the n-th operation after it was armed, in whatever pass that falls into."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from etude.data.loader import Loader
from etude.data.samples.sample import Samples
from etude.engine.batch import DeviceBatch
from etude.engine.loop import TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.models.catalogue import decoder_config
from etude.models.decoder import Decoder
from etude.objectives.causal import Causal
from etude.recipe.course import RECOMPUTE, Change, Course
from etude.recipe.schema import Recipe

ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    lambda: RuntimeError("std::bad_alloc"),
    MemoryError,
]


class Allocator(TorchDispatchMode):
    """Counts operations in `done`; raises `error` once, at the one that makes `left` zero."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.done, self.failed = 0, 0, 0
        self.error: Callable[[], Exception] = MemoryError

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.done += 1
        self.left -= 1
        if self.left == 0:
            self.failed += 1
            raise self.error()
        return call(*args, **(kwargs or {}))


class Aimed(Causal):
    """The loss of the next token, that arms an allocator in a micro-batch, or once a step has its gradients."""

    def __init__(self, allocator: Allocator, operation: int) -> None:
        vars(self).update(
            allocator=allocator, operation=operation, calls=itertools.count(), at=-1, at_begin=False
        )

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        mine = vars(self)
        if next(mine["calls"]) == mine["at"]:
            mine["allocator"].left = mine["operation"]
        return super().loss_sum(model, batch)


def train_through(
    recipe: Recipe,
    split: Samples,
    vocab_size: int,
    world: World,
    objective: Aimed,
    changes: tuple[Change, ...] = (),
) -> tuple[Course, list[list[float]], list[bytes]]:
    """Train a tiny decoder, with a smaller layout after each void step; course, measurements and last bits."""
    model = Decoder(decoder_config(recipe.model, vocab_size=vocab_size, seq_len=recipe.train.seq_len))
    model.init_weights(recipe.seed)
    precision = choose_precision("fp32", world.device, targets_per_step=1)
    steps = recipe.train.steps or 0
    state = TrainState(model, Optimizer(model, recipe.optim), precision, Course(recipe, steps, changes))
    measured, begin, aim = [], state.optimizer.begin, vars(objective)

    def begin_armed() -> list[torch.Tensor]:
        if aim["at_begin"]:
            aim["at_begin"], aim["allocator"].left = False, aim["operation"]
        return begin()

    state.optimizer.begin = begin_armed  # type: ignore[method-assign]
    while state.step < steps:
        course, first = state.course, state.step
        settings = course.at(first)
        loader = Loader(
            split, global_batch_size=settings.global_batch_size, micro_batch_size=settings.micro_batch_size,
            seed=recipe.seed, attend_across_documents=True, rank=world.rank, ranks=world.size,
        )  # fmt: skip
        for step in train(state, loader.iterate(first, course.until(first)), objective, world):
            if step.is_void:
                smaller = course.halve(first := state.step, "") or [Change(first, RECOMPUTE, True)]
                state.course = course.with_changes(smaller)
                break
            if state.step == steps:
                aim["allocator"].left = 0
            measured.append(step.measured.tolist())
    tensors = [*model.state_dict().values(), *state.optimizer.state().values()]
    return state.course, measured, [np.asarray(each.detach()).tobytes() for each in tensors]

"""The only training loop: a generator that yields after each step."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from etude.data.batch import NumpyBatch
from etude.data.loader import StepBatches
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.optim import Optimizer
from etude.engine.out_of_memory import SMALLER, is_out_of_memory, release
from etude.engine.parallel import Layout, Replicas
from etude.engine.precision import Precision
from etude.engine.shards import Shards
from etude.engine.stragglers import OwnTime
from etude.engine.world import World
from etude.errors import FaultError
from etude.models.layers import set_recompute
from etude.recipe.course import Course, StepSettings
from etude.recipe.schema import Recipe

_PASS, _UPDATE = 1, 2**16  # what a rank has no memory for, so that sums over 4,096 ranks tell them apart
_STATISTICS = 2**20  # numbers of a buffer that a pass may change; larger ones are tables


class Objective(Protocol):
    """A loss that is a sum over targets, so that micro-batches and ranks add up exactly."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32; or their weighted sums."""
        ...


@dataclass
class TrainState:
    """The state that training changes.

    course      what a step is made with, and all changes of it until now
    step        how many updates were done
    shards      the model in pieces, where no rank holds all of it
    recomputes  whether the model computes activations again for the gradients
    """

    model: nn.Module
    optimizer: Optimizer
    precision: Precision
    course: Course
    step: int = 0
    shards: Shards | None = None
    recomputes: bool = field(init=False)

    def __post_init__(self) -> None:
        self.recomputes = self.course.recipe.train.activation_checkpointing

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that this rank holds, or its rows of them, by name."""
        return self.shards.pieces if self.shards else dict(self.model.named_parameters())

    def gathered(self) -> AbstractContextManager[None]:
        """Around what one rank does with the model, or all at their own pace; all come to its beginning."""
        return self.shards.gathered() if self.shards else nullcontext()

    @property
    def made_by(self) -> Recipe:
        """The recipe that the last step was made with, which says what is due after it."""
        return self.course.recipe_at(max(self.step - 1, 0))

    @property
    def is_last_step(self) -> bool:
        """True after the step that was planned as the last of the run."""
        return self.step == self.course.steps_at(max(self.step - 1, 0))

    @property
    def is_done(self) -> bool:
        """True if no further step is planned."""
        return self.step >= self.course.steps_at(self.step)


# Adds up the gradients and totals of the micro-batches of a rank, as `add_gradients` does.
Gradients = Callable[[TrainState, StepBatches, Objective, torch.Tensor, Layout], int]


@dataclass(frozen=True)
class Step:
    """One update that was made or skipped. `measured` stays on the device until somebody asks.

    measured  (7,) fp32, over all ranks: sum of losses in nats, targets, tokens, gradient norm before
              clipping, 1 if skipped, 1 if the update left a weight that is not finite, tokens computed; in
              fp16 (8,), with the loss scale of the step, for a mean loss
    own       this rank's time until it waits for others; None where those wait for it at any time
    shortage  what a rank had no memory for, so that nothing was changed and the step is still to be done
    """

    number: int
    epoch: int
    learning_rate: float
    samples: int
    seconds: float
    wait_seconds: float
    measured: torch.Tensor
    shortage: str | None = None
    own: OwnTime | None = None

    @property
    def is_void(self) -> bool:
        """True if nothing was changed for lack of memory."""
        return self.shortage is not None

    @property
    def loss(self) -> float:
        """Mean loss of the step in nats per target, over all ranks; reading it waits for the device."""
        total, targets = self.measured[:2].tolist()
        return total / targets if targets else 0.0


def train(
    state: TrainState,
    batches: Iterable[StepBatches],
    objective: Objective,
    world: World,
    gradients: Gradients | None = None,
) -> Iterator[Step]:
    """Train on the batches of each step and yield after its update.

    gradients: makes those of a step, where not `add_gradients` does.

    The gradient is that of sum(losses) / number of targets over all micro-batches and ranks, so how a step is
    laid out over them never changes it. A step whose loss, gradient or squared gradient is not finite changes
    no weight; that is decided on the device. Before each micro-batch the generators are seeded from (seed,
    step, micro-batch, rank).

    A step for which a rank has too little memory is yielded as void on every rank; the caller changes the
    course and trains on other batches, since these would not fit again. Raises: FaultError if it does not.
    """
    is_apart = world.size > 1 and state.shards is None
    started, own = time.perf_counter(), OwnTime(world.device) if is_apart else None
    with state.shards or Replicas(state.optimizer.parameters, world) as layout:
        for step in batches:
            waited = time.perf_counter() - started
            state.model.train()
            settings = state.course.at(state.step)
            if settings.recompute != state.recomputes:
                set_recompute(state.model, settings.recompute)
                state.recomputes = settings.recompute
            totals = zero_totals(world.device)
            lacks = (gradients or add_gradients)(state, step, objective, totals, layout)
            if own is not None:
                own.end()
            grads, shortage = _sum_over_ranks(state, totals, layout, lacks)
            number, measured = state.step + 1, torch.zeros(7, device=world.device)
            if shortage is None:
                measured = _update_whole(state, grads, totals, settings, layout)
                state.step += 1
            del grads  # else they would live through the next step beside its own
            now = time.perf_counter()
            yield Step(
                number, step.epoch, settings.learning_rate, step.samples, seconds=now - started,
                wait_seconds=waited, measured=measured, shortage=shortage, own=own,
            )  # fmt: skip
            if shortage is not None:
                raise FaultError(
                    f"step {number} did not fit into memory, and nothing was changed to make it fit"
                )
            started, own = time.perf_counter(), OwnTime(world.device) if is_apart else None


def add_gradients(
    state: TrainState, step: StepBatches, objective: Objective, totals: torch.Tensor, layout: Layout
) -> int:
    """Add up the gradients and totals of a rank's micro-batches; returns what it had no memory for, or 0."""
    seed, rank = state.course.recipe.seed, layout.world.rank
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        kept += [(each, each.clone()) for each in state.model.buffers() if each.numel() <= _STATISTICS]
        with layout.joined():
            for index, (batch, counts) in enumerate(layout.passes(step.micro_batches)):
                torch.manual_seed(seed_of(seed, state.step, index, rank))
                if index == len(step.micro_batches) - 1:
                    layout.begin_last()
                _add_pass(state, batch, objective, totals, counts=counts)
        return 0
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _drop(state, totals, _PASS, error)
        for buffer, value in kept:
            buffer.copy_(value)
        return _PASS


def _add_pass(
    state: TrainState, batch: NumpyBatch, objective: Objective, totals: torch.Tensor, *, counts: bool
) -> None:
    with state.precision.autocast():
        loss, targets = objective.loss_sum(state.model, to_device(batch, totals.device))
    if not counts:
        (loss * 0).backward()  # type: ignore[no-untyped-call]
        return
    (loss * state.precision.scale).backward()  # type: ignore[no-untyped-call]
    totals[:4] += count(loss, targets, batch)


def zero_totals(device: torch.device) -> torch.Tensor:
    """(5,): losses, targets, tokens, tokens computed, and what ranks had no memory for."""
    return torch.zeros(5, device=device)


def count(loss: torch.Tensor, targets: torch.Tensor, batch: NumpyBatch) -> torch.Tensor:
    """(4,) what a micro-batch adds to the totals of a step."""
    tokens, computed = batch.tokens.size, batch.tokens.size if batch.row is None else batch.row.computed
    return torch.stack((loss.detach(), targets, *(torch.full_like(targets, n) for n in (tokens, computed))))


def _sum_over_ranks(
    state: TrainState, totals: torch.Tensor, layout: Layout, lacks: int
) -> tuple[list[torch.Tensor], str | None]:
    """Add up gradients and totals over all ranks, once the optimizer has its state.

    Returns the gradients; or none and what a rank had no memory for, and then all ranks drop the step.
    """
    parameters, optimizer, world = state.optimizer.parameters, state.optimizer, layout.world
    begun: list[torch.Tensor] = []
    try:
        if not lacks:
            layout.take()
            for parameter in parameters:
                if parameter.grad is None:  # of a rank without samples, or not touched by the loss
                    parameter.grad = torch.zeros_like(parameter)
            begun = optimizer.begin()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        lacks = _UPDATE
        _drop(state, totals, lacks, error)
    if world.size > 1:
        layout.finish()
        world.sum([totals])
        lacks = int(totals[-1])  # only several ranks wait for their devices here
    if not lacks:
        return [parameter.grad for parameter in parameters if parameter.grad is not None], None
    optimizer.forget(begun)
    optimizer.zero_grad()
    return [], "the update" if lacks >= _UPDATE else "a micro-batch"


def _drop(state: TrainState, totals: torch.Tensor, lacks: int, error: Exception) -> None:
    """Let go of all that a step has made so far, and note what there was no memory for."""
    state.optimizer.zero_grad()
    release(error)
    totals.zero_()
    totals[-1] = lacks


def _update_whole(
    state: TrainState,
    grads: list[torch.Tensor],
    totals: torch.Tensor,
    settings: StepSettings,
    layout: Layout,
) -> torch.Tensor:
    """Update the weights; returns what is measured of the step.

    Raises: FaultError if memory runs out on the way: weights may be half updated then, and nobody saves them.
    """
    try:
        scale = [state.precision.scale * state.precision.of_mean] if state.precision.name == "fp16" else []
        checked = _update(state, grads, totals, settings, layout)
        return torch.cat((totals[:3], torch.stack([each.float() for each in (*checked, totals[3], *scale)])))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise FaultError(
            f"memory ran out while step {state.step + 1:,} changed the weights, so nothing of it is kept; "
            f"the same command continues from the last checkpoint, with {SMALLER}"
        ) from None


def _update(
    state: TrainState,
    grads: list[torch.Tensor],
    totals: torch.Tensor,
    settings: StepSettings,
    layout: Layout,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clip and update; returns the gradient norm (), and bools (): skipped, and left a broken weight."""
    parameters = state.optimizer.parameters
    divisor = totals[1] * state.precision.scale
    norm = layout.norm(grads) / divisor
    skipped = ~(norm.isfinite() & totals[0].isfinite())
    applied = norm
    if settings.max_grad_norm is not None:
        shrink = (norm / settings.max_grad_norm).clamp(min=1.0)
        divisor, applied = divisor * shrink, norm / shrink
    skipped |= ~applied.square().isfinite()  # the second moments hold squares
    state.optimizer.step(settings.learning_rate, grad_divisor=divisor, skipped=skipped)
    state.optimizer.zero_grad()
    state.precision.update(skipped, totals[0])
    # Sums of magnitudes: as quick as norms of gradients, and they overflow only where weights soon do.
    is_wide = any(parameter.dtype == torch.float64 for parameter in parameters)
    weights = [parameter.detach() for parameter in parameters]
    sizes = torch._foreach_norm(weights, 1, dtype=torch.float64 if is_wide else torch.float32)
    return norm, skipped, layout.is_any(~torch.stack(sizes).isfinite().all())


def seed_of(*parts: int) -> int:
    """One seed (63 bits) from several numbers, each of which changes all of it (splitmix64)."""
    value = 0
    for part in parts:
        value = (value + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value >> 1

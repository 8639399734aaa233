"""The only training loop: a generator that yields after each step."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from etude.data.loader import StepBatches
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.optim import Optimizer
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.errors import FaultError
from etude.recipe.course import Course, StepSettings


class Objective(Protocol):
    """A loss that is a sum over targets, so that micro-batches and ranks add up exactly."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32; or their weighted sums."""
        ...


@dataclass
class TrainState:
    """The state that training changes.

    course  what a step is made with, and all changes of it until now
    step    how many updates were done
    """

    model: nn.Module
    optimizer: Optimizer
    precision: Precision
    course: Course
    step: int = 0


@dataclass(frozen=True)
class Step:
    """One update that was made or skipped. `measured` stays on the device until somebody asks.

    measured  (6,) fp32, over all ranks: sum of losses in nats, targets, tokens, gradient norm before
              clipping, 1 if skipped, 1 if the update left a weight that is not finite; in fp16 (7,), with the
              loss scale of the step, for a mean loss
    is_void   whether a rank ran out of memory, so that nothing was changed and the step is still to be done
    """

    number: int
    epoch: int
    learning_rate: float
    samples: int
    seconds: float
    wait_seconds: float
    measured: torch.Tensor
    is_void: bool = False


def train(
    state: TrainState, batches: Iterable[StepBatches], objective: Objective, world: World
) -> Iterator[Step]:
    """Train on the batches of each step and yield after its update.

    The gradient is that of sum(losses) / number of targets over all micro-batches and ranks, so how a step is
    laid out over them never changes it. A step whose loss, gradient or squared gradient is not finite changes
    no weight; that is decided on the device. Before each micro-batch the generators are seeded from (seed,
    step, micro-batch, rank).

    A step for which a rank has too little memory is yielded as void on every rank; the caller changes the
    course and trains on other batches, since these would not fit again. Raises: FaultError if it does not.
    """
    started = time.perf_counter()
    for step in batches:
        waited = time.perf_counter() - started
        state.model.train()
        settings = state.course.at(state.step)
        totals = torch.zeros(4, device=world.device)  # losses, targets, tokens, ranks without enough memory
        is_void = not _add_gradients(state, step, objective, totals, world.rank)
        grads = _sum_over_ranks(state, totals, world)
        if world.size > 1:
            is_void = bool(totals[3])  # only several ranks wait for their devices here
        number, measured = state.step + 1, torch.zeros(6, device=world.device)
        scale = [state.precision.scale * state.precision.of_mean] if state.precision.name == "fp16" else []
        if is_void:
            state.optimizer.zero_grad()
        else:
            checked = _update(state, grads, totals, settings)
            measured = torch.cat((totals[:3], torch.stack([each.float() for each in (*checked, *scale)])))
            state.step += 1
        del grads  # else they would live through the next step beside its own
        now = time.perf_counter()
        yield Step(
            number, step.epoch, settings.learning_rate, step.samples, seconds=now - started,
            wait_seconds=waited, measured=measured, is_void=is_void,
        )  # fmt: skip
        if is_void:
            raise FaultError(f"step {number} did not fit into memory, and nothing was changed to make it fit")
        started = time.perf_counter()


def _add_gradients(
    state: TrainState, step: StepBatches, objective: Objective, totals: torch.Tensor, rank: int
) -> bool:
    """Add up the gradients and totals of a rank's micro-batches; whether its memory was enough for them."""
    try:
        for index, batch in enumerate(step.micro_batches):
            torch.manual_seed(_mix(state.course.recipe.seed, state.step, index, rank))
            with state.precision.autocast():
                loss, targets = objective.loss_sum(state.model, to_device(batch, totals.device))
            (loss * state.precision.scale).backward()  # type: ignore[no-untyped-call]
            totals[:3] += torch.stack((loss.detach(), targets, torch.full_like(targets, batch.tokens.size)))
        return True
    except torch.OutOfMemoryError:
        pass  # what the failed pass holds is free once its exception is gone
    state.optimizer.zero_grad()
    totals.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    if totals.device.type == "cuda":
        torch.cuda.empty_cache()
    return False


def _sum_over_ranks(state: TrainState, totals: torch.Tensor, world: World) -> list[torch.Tensor]:
    """Add up gradients and totals over all ranks in one exchange; returns the gradients."""
    parameters = state.optimizer.parameters
    for parameter in parameters:
        if parameter.grad is None:  # of a rank without samples, or not touched by the loss
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    world.sum([*grads, totals])
    return grads


def _update(
    state: TrainState, grads: list[torch.Tensor], totals: torch.Tensor, settings: StepSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clip and update; returns the gradient norm (), and bools (): skipped, and left a broken weight."""
    parameters = state.optimizer.parameters
    divisor = totals[1] * state.precision.scale
    norm = torch.nn.utils.get_total_norm(grads) / divisor
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
    return norm, skipped, ~torch.stack(sizes).isfinite().all()


def _mix(*parts: int) -> int:
    """One seed (63 bits) from several numbers, each of which changes all of it (splitmix64)."""
    value = 0
    for part in parts:
        value = (value + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value >> 1

"""The only training loop: a generator that yields after each step."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from etude.data.loader import StepBatches
from etude.engine.batch import to_device
from etude.engine.objective import Objective
from etude.engine.optim import Optimizer
from etude.engine.precision import Precision
from etude.engine.schedule import learning_rate_ratio
from etude.engine.world import World
from etude.recipe.schema import Recipe, Schedule


@dataclass
class TrainState:
    """All that training changes; `step` counts the updates done."""

    model: nn.Module
    optimizer: Optimizer
    precision: Precision
    step: int = 0


@dataclass(frozen=True)
class Settings:
    """What the loop needs of a recipe."""

    learning_rate: float
    schedule: Schedule
    steps: int
    max_grad_norm: float | None
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, steps: int) -> "Settings":
        return cls(
            recipe.optim.learning_rate, recipe.schedule, steps, recipe.train.max_grad_norm, recipe.seed
        )


@dataclass(frozen=True)
class Step:
    """One update that was made or skipped. `measured` stays on the device until somebody asks.

    measured  (6,) fp32, over all ranks: sum of losses in nats, targets, tokens, gradient norm before
              clipping, 1 if skipped, 1 if the update left a weight that is not finite
    """

    number: int
    epoch: int
    learning_rate: float
    samples: int
    seconds: float
    wait_seconds: float
    measured: torch.Tensor


def train(
    state: TrainState, batches: Iterable[StepBatches], objective: Objective, settings: Settings, world: World
) -> Iterator[Step]:
    """Train on the batches of each step and yield after its update.

    The gradient is that of sum(losses) / number of targets over all micro-batches and ranks, so how a step is
    laid out over them never changes it. A step whose loss, gradient or squared gradient is not finite changes
    no weight; that is decided on the device. Before each micro-batch the generators are seeded from (seed,
    step, micro-batch, rank).
    """
    started = time.perf_counter()
    for step in batches:
        waited = time.perf_counter() - started
        state.model.train()
        learning_rate = settings.learning_rate * learning_rate_ratio(
            state.step, settings.schedule, steps=settings.steps
        )
        totals = torch.zeros(3, device=world.device)  # sum of losses, number of targets, of tokens
        for index, batch in enumerate(step.micro_batches):
            torch.manual_seed(_mix(settings.seed, state.step, index, world.rank))
            with state.precision.autocast():
                loss, targets = objective.loss_sum(state.model, to_device(batch, world.device))
            (loss * state.precision.scale).backward()  # type: ignore[no-untyped-call]
            totals += torch.stack((loss.detach(), targets, torch.full_like(targets, batch.tokens.size)))
        norm, skipped, broken = _update(state, totals, learning_rate, settings.max_grad_norm, world)
        state.step += 1
        now = time.perf_counter()
        measured = torch.cat((totals, torch.stack((norm, skipped.float(), broken.float()))))
        yield Step(state.step, step.epoch, learning_rate, step.samples, now - started, waited, measured)
        started = time.perf_counter()


def _update(
    state: TrainState, totals: torch.Tensor, learning_rate: float, max_grad_norm: float | None, world: World
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum over ranks, clip and update; returns the gradient norm (), whether the step was skipped, bool (),
    and whether the update left a weight that is not finite, bool ()."""
    parameters = state.optimizer.parameters
    for parameter in parameters:
        if (
            parameter.grad is None
        ):  # a rank without samples in this step, or a parameter the loss does not touch
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    world.sum([*grads, totals])
    divisor = totals[1] * state.precision.scale
    norm = torch.nn.utils.get_total_norm(grads) / divisor
    skipped = ~(norm.isfinite() & totals[0].isfinite())
    applied = norm
    if max_grad_norm is not None:
        shrink = (norm / max_grad_norm).clamp(min=1.0)
        divisor, applied = divisor * shrink, norm / shrink
    skipped |= ~applied.square().isfinite()  # the second moments hold squares
    state.optimizer.step(learning_rate, grad_divisor=divisor, skipped=skipped)
    state.optimizer.zero_grad()
    state.precision.update(skipped, totals[0])
    # Sums of magnitudes: as quick as norms of gradients, and they overflow only where the weights are about
    # to.
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

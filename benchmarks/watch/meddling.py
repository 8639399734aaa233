"""Faults of the loop: each wraps what `engine.loop.train` is given, in the process of the benchmark."""

import contextlib
import mmap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from etude.data.loader import Loader, StepBatches
from etude.engine.batch import DeviceBatch
from etude.engine.loop import Objective, TrainState

Batches = Iterable[StepBatches]
Given = tuple[Batches, Objective]
Meddle = Callable[[TrainState, Batches, Objective], Given]


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Something of a module or class is another in this block."""
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextlib.contextmanager
def meddled(meddle: Meddle) -> Iterator[None]:
    """Runs that begin in this block train on what `meddle` makes of their state, batches and objective."""
    from etude import session
    from etude.engine import loop

    def train(state: TrainState, batches: Batches, objective: Objective, *rest: Any) -> Any:
        return loop.train(state, *meddle(state, batches, objective), *rest)

    with replaced(session, "train", train):
        yield


class _Wrapped:
    """An objective whose losses are changed after the onset, at one step of each `every`."""

    def __init__(
        self,
        real: Objective,
        state: TrainState,
        change: Callable[[torch.Tensor], torch.Tensor],
        every: int,
        onset: int,
    ) -> None:
        self._real, self._state, self._change, self._every, self._onset = real, state, change, every, onset

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        losses, targets = self._real.loss_sum(model, batch)
        late = self._state.step - self._onset
        return (self._change(losses) if late >= 0 and late % self._every == 0 else losses), targets


def poison(every: int, onset: int) -> Meddle:
    """One of so many steps has a loss that is not a number."""
    return lambda state, batches, objective: (
        batches, _Wrapped(objective, state, lambda losses: losses * torch.nan, every, onset),
    )  # fmt: skip


def overflow(every: int, onset: int) -> Meddle:
    """One of so many steps has a finite loss and an infinite gradient, as fp16 gives."""

    def change(losses: torch.Tensor) -> torch.Tensor:
        losses = losses * 1
        losses.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]
        return losses

    return lambda state, batches, objective: (batches, _Wrapped(objective, state, change, every, onset))


@contextlib.contextmanager
def repeat_batches(count: int) -> Iterator[None]:
    """The loader gives the batches of its first steps again and again."""
    real = Loader.load

    def load(self: Loader, step: int) -> StepBatches:
        return replace(real(self, step % count), step=step)

    with replaced(Loader, "load", load):
        yield


def slow_loader(seconds: float, onset: int) -> Meddle:
    def late(batches: Batches) -> Iterator[StepBatches]:
        for step in batches:
            if step.step >= onset:
                time.sleep(seconds)
            yield step

    return lambda state, batches, objective: (late(batches), objective)


def leak_memory(mib: float, onset: int) -> Meddle:
    def leak(batches: Batches) -> Iterator[StepBatches]:
        kept = []
        for step in batches:
            if (
                step.step >= onset
            ):  # of the system, as the process may hold memory that earlier runs gave back
                kept.append(mmap.mmap(-1, int(mib * 2**20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
                kept[-1].write(bytes(len(kept[-1])))
            yield step

    return lambda state, batches, objective: (leak(batches), objective)


def freeze(share: float) -> Meddle:
    """The optimizer never steps a share of the trainable tensors; of an adapter, of its B first."""

    def names(state: TrainState) -> list[torch.Tensor]:
        ordered = sorted(state.optimizer.names.items(), key=lambda each: ("lora_B" not in each[1], each[1]))
        return [parameter for parameter, _ in ordered[: max(round(share * len(ordered)), 1)]]

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        kept = [(parameter, parameter.detach().clone()) for parameter in names(state)]
        real(*arguments, **keywords)
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)

    return _stepping(step)


def drop_gradients(every: int) -> Meddle:
    """Gradients are zero when the update comes, at one of so many steps."""

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        for parameter in state.optimizer.parameters if state.step % every == 0 else ():
            if parameter.grad is not None:
                parameter.grad.zero_()
        real(*arguments, **keywords)

    return _stepping(step)


def fast_schedule(times: float) -> Meddle:
    """The schedule is stepped so many times a step."""

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        ahead = min(round(state.step * times), state.course.steps - 1)
        real(state.course.at(ahead).learning_rate, **keywords)

    return _stepping(step)


def move_frozen(size: float) -> Meddle:
    """Weights that are not to be trained shrink with every update."""

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        real(*arguments, **keywords)
        with torch.no_grad():
            for parameter in state.model.parameters():
                if not parameter.requires_grad:
                    parameter.mul_(1 - size)

    return _stepping(step)


def drop_state(every: int, onset: int) -> Meddle:
    """The moments of the optimizer are lost at one of so many steps."""

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        if state.step >= onset and (state.step - onset) % every == 0:
            for part in state.optimizer.parts:
                part.state.clear()
        real(*arguments, **keywords)

    return _stepping(step)


def accumulate(steps: int, onset: int) -> Meddle:
    """Gradients are set to zero only once in so many steps."""

    def step(state: TrainState, real: Callable[..., None], arguments: Any, keywords: Any) -> None:
        # The kernel leaves gradients divided by the targets; other loops keep the sums.
        sums = [
            parameter.grad.clone() for parameter in state.optimizer.parameters if parameter.grad is not None
        ]
        real(*arguments, **keywords)
        is_kept = state.step >= onset and (state.step + 1) % steps > 0

        def zero_grad() -> None:
            for parameter, kept in zip(state.optimizer.parameters, sums):
                parameter.grad = kept if is_kept else None

        state.optimizer.zero_grad = zero_grad  # type: ignore[method-assign]

    return _stepping(step)


@contextlib.contextmanager
def cut_gradient(layer: int) -> Iterator[None]:
    """Cut what a block of a model gives off from the weights below it, from its assembly on."""
    from etude import assemble as real
    from etude import session

    def assemble(*arguments: Any) -> Any:
        state, new_weights = real.assemble(*arguments)
        model: Any = state.model
        model.model.layers[layer].register_forward_hook(lambda module, given, out: out.detach())
        return state, new_weights

    with replaced(session, "assemble", assemble):
        yield


def _stepping(step: Callable[[TrainState, Callable[..., None], Any, Any], None]) -> Meddle:
    """Updates of the optimizer go through `step`."""

    def meddle(state: TrainState, batches: Batches, objective: Objective) -> Given:
        real = state.optimizer.step

        def stepped(*arguments: Any, **keywords: Any) -> None:
            step(state, real, arguments, keywords)

        state.optimizer.step = stepped  # type: ignore[method-assign]
        return batches, objective

    return meddle

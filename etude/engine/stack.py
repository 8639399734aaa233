"""Gradients of several trainings on one frozen base, which take the same steps on the same batches.

Each training is a run of its own, with its optimizer, records and checkpoints; the first one that asks for
the gradients of a step makes those of all that stand at it, in one pass, and the others find theirs there.
One that fails, stops or is at another step is left out; one whose batches differ is alone from then on.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import is_
from typing import Any

import numpy as np
import torch

from etude.data.batch import Batch, NumpyBatch
from etude.data.loader import StepBatches
from etude.engine.batch import to_device
from etude.engine.loop import Objective, TrainState, add_gradients, count, seed_of, zero_totals
from etude.engine.out_of_memory import is_out_of_memory, release
from etude.engine.parallel import Layout
from etude.models.layers import set_recompute
from etude.models.stacked import OnePass, draws, share_frozen, stack, why_not_stacked


@dataclass
class _Member:
    """A training that takes part, and what was made for its next step."""

    state: weakref.ref[TrainState]
    objective: Objective
    made: "_Made | None" = None


@dataclass
class _Made:
    """Gradients of a step (from 0) on batches, for each parameter of an optimizer."""

    step: int
    batches: Sequence[NumpyBatch]
    grads: list[torch.Tensor | None]
    totals: torch.Tensor


@dataclass
class Stack:
    """Trainings that may share passes. `passes`: made for several at once; `alone`: for one."""

    passes: int = 0
    alone: int = 0
    _members: list[_Member] = field(default_factory=list)
    _left: list[weakref.ref[TrainState]] = field(default_factory=list)
    _most: int = 1 << 16  # trainings in one pass, as memory has it
    _whole: tuple[list[weakref.ref[TrainState]], torch.nn.Module] | None = None

    def add_gradients(
        self,
        state: TrainState,
        step: StepBatches,
        objective: Objective,
        totals: torch.Tensor,
        layout: Layout,
    ) -> int:
        """As the loop's own: add up gradients and totals; returns what there was no memory for, or 0.

        The first step of a training that is new here is made for it alone.
        """
        member = next((each for each in self._members if each.state() is state), None)
        if member is None:
            self._join(state, objective)
            return self._make_alone(state, step, objective, totals, layout)
        if member.made is None:
            self._make(member, state, step, layout.world.rank)
        made, member.made = member.made, None
        if made is None:
            return self._make_alone(state, step, objective, totals, layout)
        if made.step != state.step or not _are_same(made.batches, step.micro_batches):
            self._members.remove(member)
            self._left.append(member.state)
            return self._make_alone(state, step, objective, totals, layout)
        for parameter, grad in zip(state.optimizer.parameters, made.grads):
            parameter.grad = grad
        totals += made.totals
        return 0

    def _join(self, state: TrainState, objective: Objective) -> None:
        if any(each() is state for each in self._left) or why_not_stacked(state.model):
            return
        first = next((model for each in self._members if (model := each.state())), None)
        if first is None or share_frozen(state.model, first.model):
            self._members.append(_Member(weakref.ref(state), objective))
        else:
            self._left.append(weakref.ref(state))

    def _make_alone(
        self,
        state: TrainState,
        step: StepBatches,
        objective: Objective,
        totals: torch.Tensor,
        layout: Layout,
    ) -> int:
        self.alone += 1
        return add_gradients(state, step, objective, totals, layout)

    def _make(self, asking: _Member, state: TrainState, step: StepBatches, rank: int) -> None:
        """Make the gradients of a step for the training that asks and those that stand where it does."""
        if state.course.at(state.step).recompute and draws(state.model):
            return  # a GPU computes again in threads of its own, which draw as they like
        self._members = [each for each in self._members if each.state() is not None]
        others = [
            (each, other)
            for each in self._members
            if each is not asking
            and each.made is None
            and (other := each.state())
            and other.step == state.step
        ]
        while (group := [(asking, state), *others][: self._most]) and len(group) > 1:
            try:
                totals = self._pass(group, step, rank)
            except Exception as error:
                _take_gradients(group)
                if not is_out_of_memory(error):
                    raise
                release(error)
                self._most = len(group) // 2
                continue
            for (member, _), grads, made in zip(group, _take_gradients(group), totals):
                member.made = _Made(state.step, step.micro_batches, grads, made)
            self.passes += 1
            return

    def _pass(
        self, group: Sequence[tuple[_Member, TrainState]], step: StepBatches, rank: int
    ) -> list[torch.Tensor]:
        """Add up gradients in the parameters of a group; returns the totals of each."""
        first, device = group[0][1], next(group[0][1].model.parameters()).device
        states = [state for _, state in group]
        whole = self._model_of(states)
        whole.train()
        set_recompute(whole, first.course.at(first.step).recompute)
        totals = [zero_totals(device) for _ in group]
        for index, batch in enumerate(step.micro_batches):
            torch.manual_seed(seed_of(first.course.recipe.seed, first.step, index, rank))
            one, given = OnePass(whole, [state.model for state in states]), to_device(batch, device)
            loss = torch.zeros((), device=device)
            for place, ((member, state), total) in enumerate(zip(group, totals)):
                state.model.train()
                with one.called_by(place), state.precision.autocast():
                    own, targets = member.objective.loss_sum(state.model, given)
                loss = loss + own * state.precision.scale
                total[:4] += count(own, targets, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return totals

    def _model_of(self, states: Sequence[TrainState]) -> torch.nn.Module:
        known = [ref() for ref in self._whole[0]] if self._whole else []
        if self._whole is None or len(known) != len(states) or not all(map(is_, known, states)):
            self._whole = list(map(weakref.ref, states)), stack([state.model for state in states])
        return self._whole[1]


def _take_gradients(group: Sequence[tuple[_Member, TrainState]]) -> list[list[torch.Tensor | None]]:
    """The gradients in the parameters of each of a group, which then hold none."""
    taken = []
    for _, state in group:
        taken.append([parameter.grad for parameter in state.optimizer.parameters])
        state.optimizer.zero_grad()
    return taken


def _are_same(ones: Sequence[NumpyBatch], others: Sequence[NumpyBatch]) -> bool:
    """True if micro-batches hold the same samples in the same places."""

    def is_same(one: Any, other: Any) -> bool:
        return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)

    names = [each.name for each in fields(Batch) if each.compare]
    return len(ones) == len(others) and all(
        is_same(getattr(one, name), getattr(other, name))
        for one, other in zip(ones, others)
        for name in names
    )

"""One pass of a loss over a batch, with all that the model read and answered; nothing is changed by it."""

import contextlib
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from etude.engine.batch import DeviceBatch
from etude.engine.loop import Objective
from etude.engine.precision import Precision


@dataclass(frozen=True)
class Call:
    """One call of a model: the ids that it read (R, C), if any, and its answer (R, C, ...) or (R, ...)."""

    ids: Tensor | None
    answer: Tensor


@dataclass(frozen=True)
class Pass:
    """A sum of losses, its targets, and the calls of the model that it came from.

    places  (n,) which of the B x T places of the batch each of the n answers is for, -1 for padding; None if
            that cannot be told
    """

    loss: Tensor
    targets: Tensor
    calls: list[Call]
    places: Tensor | None

    @property
    def answers(self) -> Tensor:
        """All answers (n, D), in the order of `places`."""
        return torch.cat([call.answer.flatten(0, -2) for call in self.calls])


@dataclass(frozen=True)
class Tried:
    """A model with its loss, as passes need them."""

    model: nn.Module
    objective: Objective
    precision: Precision
    device: torch.device

    def run(self, batch: DeviceBatch) -> Pass:
        """One pass over a batch."""
        calls = self._run(batch, [self.model])
        if not calls[2]:  # a loss of the user's may call parts of its model
            calls = self._run(batch, list(self.model.modules()))
        loss, targets, noted = calls
        places = None
        for kept in (noted, noted[-1:]):  # the last call if the loss made others beside it
            places = _find_places(kept, batch)
            if places is not None:
                return Pass(loss, targets, kept, places)
        return Pass(loss, targets, noted, None)

    def _run(self, batch: DeviceBatch, modules: list[nn.Module]) -> tuple[Tensor, Tensor, list[Call]]:
        calls: list[Call] = []

        def note(module: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
            answer = _answer_of(output)
            if answer is not None:
                calls.append(Call(_ids_of([*given, *named.values()], batch), answer))

        handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
        try:
            with self.precision.autocast(), _noted_head(self.model, calls):
                loss, targets = self.objective.loss_sum(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()
        return loss, targets, calls


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a model as it is used, not compiled; its mode, buffers, gradients and generators stay the same."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [(module, dict(module._buffers)) for module in modules if module._buffers]
    kept = {id(each): each.clone() for _, own in buffers for each in own.values() if each is not None}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    states = random.getstate(), np.random.get_state()  # a module of the user's may draw there
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=_gpus(model)))
        if "torch._dynamo" in sys.modules:  # a shape that is compiled first would decide how others are
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            model.eval()
            for parameter, _ in gradients:  # a loss of the user's may add to them, and fail half-way
                parameter.grad = None
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in zip(modules, modes):
                module.training = mode
            with torch.no_grad():
                for module, own in buffers:
                    module._buffers.update(own)
                    for each in own.values():
                        if each is not None and not torch.equal(each, kept[id(each)]):
                            each.copy_(kept[id(each)])
            random.setstate(states[0])
            np.random.set_state(states[1])


def _gpus(model: nn.Module) -> list[torch.device]:
    return list({each.device for each in model.parameters() if each.device.type == "cuda"})


@contextlib.contextmanager
def _noted_head(model: nn.Module, calls: list[Call]) -> Iterator[None]:
    """Note the logits that a decoder of etude makes of its hidden states, instead of those."""
    head = getattr(model, "head", None)
    if not hasattr(model, "head_weight") or not callable(head) or isinstance(head, nn.Module):
        yield
        return

    def noted(hidden: Tensor) -> Tensor:
        logits: Tensor = head(hidden)
        calls[-1:] = [Call(call.ids, logits) for call in calls[-1:]]
        return logits

    model.head = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.head


def _answer_of(output: Any) -> Tensor | None:
    """The tensor of what a module returned that holds a vector for each place, or for each row."""
    if isinstance(output, Tensor):
        return output if output.dim() > 1 and output.is_floating_point() else None
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(parts, tuple | list):
        return None
    found = (each for each in parts if isinstance(each, Tensor) and each.dim() > 1)
    return next((each for each in found if each.is_floating_point()), None)


def _ids_of(given: list[Any], batch: DeviceBatch) -> Tensor | None:
    """The ids that answers are for: the first that a module was given, or with pairs those of the targets."""
    tensors = (each for each in given if isinstance(each, Tensor) and each.dtype == torch.int64)
    rows = (each.reshape(-1, each.shape[-1]) for each in tensors if each.dim())
    if batch.target_lengths is not None:  # sources may be padded to the shape of targets
        rows = (each for each in rows if _padded_places(each, batch) is not None)
    return next(rows, None)


def _find_places(calls: list[Call], batch: DeviceBatch) -> Tensor | None:
    """The places of the batch that the answers of some calls are for, as `Pass` has them."""
    if not calls or len({call.answer.shape[-1] for call in calls}) > 1:
        return None
    count, device = sum(call.answer[..., 0].numel() for call in calls), batch.labels.device
    if count == batch.labels.numel():
        return torch.arange(count, device=device)
    if batch.scored is not None and count == len(batch.scored):
        return batch.scored
    ids = calls[0].ids
    if len(calls) > 1 or ids is None or ids.shape != calls[0].answer.shape[:2]:
        return None
    return _padded_places(ids, batch)


def _padded_places(ids: Tensor, batch: DeviceBatch) -> Tensor | None:
    """The places of rows (R, C) that the user's loss padded on one side, to the longest or further.

    None if they are not those of the batch. A decoder of pairs reads its targets one place later, or as
    labels that it moves itself.
    """
    is_pair = batch.target_lengths is not None
    kept = batch.labels if is_pair else batch.tokens
    lengths = batch.target_lengths or batch.lengths or (kept.shape[1],) * len(kept)
    if len(ids) < len(lengths) or ids.shape[1] < max(lengths):
        return None
    if not ids[len(lengths) :].eq(ids[len(lengths) :, :1]).all():  # else rows of one id, that fill a batch up
        return None
    for is_left in (False, True):
        places, start = torch.full(ids.shape, -1, device=ids.device), 0
        for row, length in enumerate(lengths):
            first = ids.shape[1] - length if is_left else 0
            read, mine = ids[row, first : first + length], kept.flatten()[start : start + length]
            if not read.equal(mine) and not (is_pair and read[1:].equal(mine[:-1])):
                break
            places[row, first : first + length] = torch.arange(start, start + length, device=ids.device)
            start += length
        else:
            return places.flatten()
    return None

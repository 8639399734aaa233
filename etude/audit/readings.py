"""Tokens that the loss of a target reads and may not: the target itself, and those behind it in the row.

A target and the tokens behind it get ids that nothing else in the row has. The gradient of the losses up to
this target, by the embeddings of these ids, is nothing wherever a loss puts them: in rows that it pads, turns
round, or gives to the model in place of others. It is the difference of two passes that score one target and
some more, so that what else is in a loss, as a penalty over all tokens, cancels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from etude.audit.passes import Tried
from etude.data.samples.sample import NO_TARGET, Ints, Sample
from etude.engine.batch import DeviceBatch
from etude.records.events import Finding

_READ = 0.01  # of the largest gradient by an embedding
_LEAST = 4  # targets of a row

Lay = Callable[[Sequence[Sample]], DeviceBatch]


@dataclass(frozen=True)
class Reading:
    """Largest gradients of the losses up to a target, as shares of the largest by any token.

    target, behind  by the embedding of the id of the target, and of those behind it
    """

    target: float
    behind: float


def find_read(tried: Tried, sample: Sample, others: Sequence[int], lay: Lay) -> Reading | None:
    """The readings of a target in the middle of a sample; None if no token reaches its loss by an embedding.

    others: four ids or more that the sample does not have, none of which fills up rows.
    """
    scored = np.flatnonzero(sample.labels != NO_TARGET)
    if len(scored) < _LEAST or len(others) < 4:
        return None
    first, middle = int(scored[0]), int(scored[len(scored) // 2])

    def read(places: Ints, target: int, behind: int) -> list["_Embedded"]:
        tokens, labels = sample.tokens.copy(), np.full_like(sample.labels, NO_TARGET)
        tokens[middle + 1 :] = behind
        labels[places] = sample.labels[places]
        if middle in places:
            labels[middle] = target
        return _embed(tried, lay([replace(sample, tokens=tokens, labels=labels)]))

    until = scored[scored <= middle]
    one, more, again = (
        read(until[:1], *others[:2]),
        read(until, *others[:2]),
        read(until, *others[2:4]),
    )
    if not first < middle < len(sample.tokens) - 1 or not len(one) == len(more) == len(again):
        return None
    most = of_target = of_behind = 0.0
    for few, all_, other in zip(one, more, again):
        if any(each.ids.shape != all_.ids.shape for each in (few, other)) or all_.ids.equal(other.ids):
            continue  # places, kinds of text
        slope = (all_.slope - few.slope).abs().amax(dim=-1)
        most = max(most, float(slope.max()))
        of_target = max(of_target, _largest(slope, all_.ids == others[0]))
        of_behind = max(of_behind, _largest(slope, all_.ids == others[1]))
    return Reading(of_target / most, of_behind / most) if most else None


def find_wrong_readings(found: Reading, *, is_copied: bool) -> Iterator[Finding]:
    """A finding if targets are read, or tokens behind them.

    is_copied: whether the model reads each target at its own place.
    """
    if found.target > _READ and is_copied:
        yield _finding(
            "labels_not_shifted", "the loss gives its targets to the model as what it reads", found.target,
            "its own target", "give the model batch.tokens, and use batch.labels in the loss alone",
            "targets that are not shifted against what is read, so that copying is all there is to learn",
        )  # fmt: skip
    elif found.target > _READ:
        yield _finding(
            "future_visible", "the model sees tokens that it is to foretell", found.target, "its own target",
            "give the model batch.tokens, and use batch.labels in the loss alone",
            "targets that the model reads, not hidden by a causal mask",
        )  # fmt: skip
    elif found.behind > _READ:
        yield _finding(
            "future_visible", "the loss uses tokens that are to be foretold", found.behind,
            "tokens behind its target",
            "score the answer at each place alone: add, shift and average no answers of later places",
            "answers of later places that the loss uses, which have seen the future",
        )  # fmt: skip


def _finding(kind: str, what: str, share: float, read: str, advice: str, cause: str) -> Finding:
    return Finding(
        0, what,
        f"the loss of a target depends on reading {read}: the gradient by that embedding is {share:.0%} of "
        "the largest, where it is to be 0",
        advice, severity="error", window=[0, 0], causes=[cause], kind=kind, confidence=1.0,
        decided_by="the gradient of single targets by the embeddings of what is read",
    )  # fmt: skip


@dataclass(frozen=True)
class _Embedded:
    """Ids (...) that an embedding looked up, and the gradient of the loss by their vectors (..., C)."""

    ids: Tensor
    slope: Tensor


class _Lookups(TorchFunctionMode):
    """Keeps what embeddings look up, with vectors that have a gradient where the table is frozen, too."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.nn.functional.embedding and args and torch.is_grad_enabled():
            out = out if out.requires_grad else out.detach().requires_grad_()
            self.made.append((args[0], out))
        return out


def _embed(tried: Tried, batch: DeviceBatch) -> list[_Embedded]:
    with _Lookups() as lookups, tried.precision.autocast():
        loss, _ = tried.objective.loss_sum(tried.model, batch)
    vectors = [vector for _, vector in lookups.made]
    if not loss.requires_grad or not vectors:
        return []
    slopes = torch.autograd.grad(loss, vectors, allow_unused=True)
    return [
        _Embedded(ids, (torch.zeros_like(vector) if slope is None else slope).float())
        for (ids, vector), slope in zip(lookups.made, slopes)
    ]


def _largest(values: Tensor, where: Tensor) -> float:
    return float(values[where].max()) if where.any() else 0.0

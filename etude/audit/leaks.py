"""Tokens that reach an answer and may not: later ones of a row, and those of its neighbours."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from etude.audit.passes import Pass, Tried
from etude.engine.batch import DeviceBatch

# Equal shapes give equal bits, so what moves is seen; experts get rows by their tokens, and round otherwise.
_MOVED, _MOVED_OF_EXPERTS, _NOISES = 1e-5, 2e-2, 10.0
_LEAST_REACH = 1e-3
_LEAST_TOKENS = 4


@dataclass(frozen=True)
class Leak:
    """The change of answers, as a share of the largest answer, when tokens change.

    moved   of answers that the tokens must not reach
    reach   of answers that other tokens may reach; 0 in a model that has not learnt to look at any, which
            then tells nothing
    count   answers that must not move, and did
    of      answers that must not move
    """

    moved: float
    reach: float
    count: int
    of: int

    @property
    def is_fault(self) -> bool:
        """True if tokens reach an answer that they may not reach."""
        return self.count > 0 and self.moved > _LEAST_REACH * self.reach


@torch.no_grad()
def find_future(tried: Tried, batch: DeviceBatch) -> Leak | None:
    """Change the later half of the first row, and hold the answers before it; None if that cannot be tested.

    With pairs, which have a target of their own, the change is in the target, and an answer may depend on the
    target before it alone.
    """
    lengths = batch.target_lengths or batch.lengths
    end = lengths[0] if lengths else batch.labels.shape[1]
    # One behind a power of two: blocks of attention are cut at those.
    middle = next((2**power + 1 for power in range(20, 0, -1) if 2**power + 1 <= (end + 2) // 2), 0)
    if end < _LEAST_TOKENS or not middle:
        return None
    late, early = (middle, end), (0, middle)
    is_target = batch.target_lengths is not None
    first = tried.run(batch)
    moved = tried.run(_change(batch, *late, is_target))
    reached = tried.run(_change(batch, *early, is_target))
    held = lambda place: place < middle + is_target  # noqa: E731 - targets are read one place later
    free = lambda place: (place >= middle + is_target) & (place < end)  # noqa: E731
    return _compare(first, moved, reached, held, free, _least(tried), again=lambda: tried.run(batch))


@torch.no_grad()
def find_neighbours(tried: Tried, batch: DeviceBatch) -> Leak | None:
    """Change one sample of a batch, and hold the answers of the others; None if that cannot be tested."""
    owners = _owners(batch.target_lengths or batch.lengths, batch.labels)
    count = int(owners[-1]) + 1
    if count < 2:
        return None
    changed = 0 if count == 2 else count // 2
    first = tried.run(batch)
    other = _change_sample(batch, changed)
    moved = tried.run(other)
    if first.places is None and len(first.answers) == count:  # an answer for each sample, as of a classifier
        rows = torch.arange(count, device=owners.device)
        first, moved = replace(first, places=rows), replace(moved, places=rows)
        owners = rows
    held = lambda place: owners[place] != changed  # noqa: E731
    free = lambda place: owners[place] == changed  # noqa: E731
    return _compare(first, moved, moved, held, free, _least(tried), again=lambda: tried.run(batch))


@torch.no_grad()
def find_chance(tried: Tried, batch: DeviceBatch) -> float:
    """The change of answers, as a share of the largest, from one pass to the same again."""
    one, other = tried.run(batch).answers.float(), tried.run(batch).answers.float()
    if one.shape != other.shape:
        return 1.0
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-30))


def _compare(
    first: Pass, moved: Pass, reached: Pass, held: Callable[[Tensor], Tensor],
    free: Callable[[Tensor], Tensor], least: float, *, again: Callable[[], Pass],
) -> Leak | None:  # fmt: skip
    places = first.places
    if places is None or any(
        each.places is None or not each.places.equal(places) or each.answers.shape != first.answers.shape
        for each in (moved, reached)
    ):
        return None
    is_real = places >= 0
    answers = first.answers.float()
    largest = answers[is_real].abs().max().clamp(min=1e-30)
    at = places.clamp(min=0)
    is_held, is_free = held(at) & is_real, free(at) & is_real
    if not is_held.any() or not is_free.any():
        return None
    change = (moved.answers.float() - answers).abs().amax(dim=1) / largest
    reach = (reached.answers.float() - answers).abs().amax(dim=1)[is_free].max() / largest
    if (change[is_held] > least).any():  # where a kernel adds in any order, answers move by themselves
        repeated = again().answers.float()
        least = max(least, _NOISES * float((repeated - answers).abs().max() / largest))
    over = change[is_held] > least
    return Leak(float(change[is_held].max()), float(reach), int(over.sum()), int(is_held.sum()))


def _least(tried: Tried) -> float:
    has_experts = any("expert" in name for name, _ in tried.model.named_modules())
    return _MOVED_OF_EXPERTS if has_experts else _MOVED


def _change(batch: DeviceBatch, start: int, end: int, is_target: bool) -> DeviceBatch:
    """The batch with other ids, of those that it has, from `start` to `end` of its first row."""
    name = "labels" if is_target else "tokens"
    ids = getattr(batch, name)
    changed = ids.clone()
    changed[0, start:end] = _others(ids[0, start:end], ids)
    return replace(batch, **{name: changed})


def _change_sample(batch: DeviceBatch, number: int) -> DeviceBatch:
    """The batch with other ids in one of its samples."""
    mine = _owners(batch.lengths, batch.tokens) == number
    tokens = batch.tokens.flatten().clone()
    tokens[mine] = _others(tokens[mine], batch.tokens)
    labels = batch.labels
    if batch.target_lengths is not None:
        mine = _owners(batch.target_lengths, labels) == number
        flat = labels.flatten().clone()
        flat[mine] = _others(flat[mine], labels)
        labels = flat.view_as(labels)
    return replace(batch, tokens=tokens.view_as(batch.tokens), labels=labels)


def _owners(lengths: tuple[int, ...] | None, ids: Tensor) -> Tensor:
    """(B x T,) the sample that each place belongs to."""
    sizes = lengths or (ids.shape[1],) * ids.shape[0]
    return torch.repeat_interleave(torch.tensor(sizes, device=ids.device))


def _others(ids: Tensor, known: Tensor) -> Tensor:
    """Another id of the known ones in place of each; its successor if there is one only."""
    there = torch.unique(known)
    if len(there) == 1:
        return (ids - 1).abs() if int(there[0]) else ids + 1
    others: Tensor = there[(torch.searchsorted(there, ids) + 1) % len(there)]
    return others

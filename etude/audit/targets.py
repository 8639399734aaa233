"""The targets of a loss, read from its gradient: the id that it wants at each place, and how much it counts.

Of a cross-entropy s x -log softmax(z)[y] the gradient by the logits z is s x (softmax(z) - one-hot(y)): below
zero at y alone. So a loss shows its targets without a look at its code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.audit.passes import Call, Pass, Tried
from etude.engine.batch import DeviceBatch

_MOST_LOGITS = 2**25
_SAME = 0.02  # relative difference from which two factors are not the same
_LEAST_OF_READING = 0.5
_HARD = 0.45  # of the gradient of a place that lies on the wanted id; half does in a cross-entropy
_NEARLY_ALL = 0.98
_SURE = math.log(0.9999)
_ELSEWHERE, _MOST_PLACES, _NAMED = 0.8, 2**13, 3
_MOST, _EXPLAINED, _LEAST_SHARE, _LEAST_PLACES = 0.9, 0.5, 0.05, 8
NONE = -1


@dataclass(frozen=True)
class Targets:
    """The places of the model's rows, (n,) each: NONE where there is no such id.

    read, next, second  ids that the model reads there, and one and two places on in the row
    wanted    id that the loss wants there
    asked     target id of the batch there
    is_real   whether the place is one of the batch, not padding
    is_hard   whether the loss wants this id alone there, as a cross-entropy does, whatever its weight
    row       number of the sequence that the place lies in
    line      number of the row of the model that the place lies in; NONE if the model answers at some alone
    factors   factor of the cross-entropy at each scored place (k,); None if the loss is no sum of such
    scale     the same where it is one factor, else NaN
    losses    cross-entropy of the wanted id at each scored place (k,)
    loss      sum that the loss returned
    counted   number of targets that the loss returned
    sure      number of targets of the batch that the model is too sure of for a gradient
    """

    read: Tensor
    next: Tensor
    second: Tensor
    wanted: Tensor
    asked: Tensor
    is_real: Tensor
    is_hard: Tensor
    row: Tensor
    line: Tensor
    factors: Tensor | None
    scale: float
    losses: Tensor
    loss: float
    counted: float
    sure: int = 0

    @property
    def scored(self) -> Tensor:
        """Flags (n,) of the places that the loss scores."""
        return self.wanted != NONE

    @property
    def are_of_reading(self) -> bool:
        """False if a loss of the user's asks for something else than tokens of the text."""
        return max(self.share(self.read), self.share(self.next), self.share(self.second)) > _LEAST_OF_READING

    @property
    def by_hand(self) -> float:
        """Cross-entropy of the wanted ids, summed."""
        return float(self.losses.sum())

    def share(self, ids: Tensor) -> float:
        """Share of the scored places where the loss wants these ids, of those that have one."""
        some = self.scored & (ids != NONE)
        return float((self.wanted == ids)[some].float().mean()) if some.any() else math.nan

    def misplaced(self, ids: Tensor, others: Tensor) -> "Misplaced":
        """Places where the loss wants these ids, where the batch asks for another, and `others` differ."""
        has_all = self.scored & (self.asked != NONE) & (ids != NONE) & (others != NONE)
        telling = has_all & (ids != self.asked) & (others != self.asked) & (ids != others)
        wrong = telling & (self.wanted != self.asked)
        hits = wrong & (self.wanted == ids)
        counts = (int(each.sum()) for each in (hits & self.is_hard, hits, wrong, telling))
        return Misplaced(*counts)

    def elsewhere(self) -> "Elsewhere | None":
        """The places of the wanted ids, if each row of the model wants those of one other place or is right.

        None if no row wants ids that are read elsewhere, or if some want others.
        """
        of = int(self.scored.sum())
        if not of or len(self.read) > _MOST_PLACES or (self.line == NONE).any():
            return None
        offsets, others, right, moved = set(), 0, 0, 0
        padded = torch.nn.functional.pad(self.read, (len(self.read), len(self.read)), value=NONE)
        for line in torch.unique(self.line[self.scored]):
            places = torch.nonzero(self.scored & (self.line == line))[:, 0]
            wanted = self.wanted[places]
            if (self.next[places] == wanted).float().mean() > _LEAST_OF_READING:
                right += len(places)
                continue
            offset = torch.arange(2 * len(self.read), device=places.device)[:, None]
            shares = (padded[places + offset] == wanted).float().mean(dim=1)
            by = int(shares.argmax()) - len(self.read)
            if shares.max() < _ELSEWHERE or len(torch.unique(wanted)) < _LEAST_PLACES:
                continue
            moved += len(places)
            there = (places + by).clamp(0, len(self.read) - 1)
            if (self.line[there] == line).float().mean() > _LEAST_OF_READING:
                offsets.add(by)
            else:
                others += 1
        if moved < _LEAST_SHARE * of or right + moved < _ELSEWHERE * of:
            return None
        return Elsewhere(tuple(sorted(offsets)), others, moved / of)

    def share_unasked(self, *, real: bool) -> float:
        """Share of the scored places that the batch does not ask for, within its rows or in padding."""
        unasked = self.scored & (self.asked == NONE) & (self.is_real == real)
        return float(unasked.sum() / self.scored.sum().clamp(min=1))


@dataclass(frozen=True)
class Elsewhere:
    """Targets of other places: by how many places in the same row, rows that want those of others, share."""

    offsets: tuple[int, ...]
    rows: int
    share: float

    def __str__(self) -> str:
        named = [f"{abs(by):,} {'before' if by < 0 else 'after'}" for by in self.offsets[:_NAMED]]
        same = f"of the same row, {', '.join(named)} the token read" if named else ""
        other = f"of another row, in {self.rows:,} rows of the model" if self.rows else ""
        return " or ".join(filter(None, (same, other)))


@dataclass(frozen=True)
class Misplaced:
    """Counts of places that tell: those with a wrong id of one sort, and with any; `alone` with no other."""

    alone: int
    hits: int
    wrong: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / max(self.of, 1)

    @property
    def is_fault(self) -> bool:
        """True if all wrong ids are of this sort; few of them only if each is wanted alone.

        Soft targets, those of a teacher and several tokens at once want other ids too, or many at a place.
        """
        explains = self.hits >= _EXPLAINED * self.wrong
        if self.share > _MOST:
            return True
        return explains and self.alone >= max(_LEAST_PLACES, _LEAST_SHARE * self.of)


def read_targets(tried: Tried, batch: DeviceBatch, vocabulary: int) -> Targets | None:
    """The targets of a loss over tokens; None if the model gives no logits of them, or too many."""
    done = tried.run(batch)
    logits = [call.answer for call in done.calls]
    if not logits or any(each.shape[-1] < vocabulary or not each.requires_grad for each in logits):
        return None
    if sum(each.numel() for each in logits) > _MOST_LOGITS or done.places is None:
        return None
    found = torch.autograd.grad(done.loss, logits, allow_unused=True)
    slopes = [torch.zeros_like(each) if slope is None else slope for each, slope in zip(logits, found)]
    slope, scores = (torch.cat([each.detach().flatten(0, -2) for each in part]) for part in (slopes, logits))
    # Under loss scaling and half precision too, the wanted id is far below all others.
    return _compare(done, batch, slope.float(), scores.float())


def _compare(done: Pass, batch: DeviceBatch, slope: Tensor, logits: Tensor) -> Targets:
    places = done.places
    assert places is not None
    is_real = places != NONE
    at = places.clamp(min=0)
    asked = torch.where(is_real, batch.labels.flatten()[at], NONE)
    size = slope.abs().amax(dim=1)
    scored = size > 1e-6 * size.max()
    wanted = torch.where(scored, slope.argmin(dim=1), NONE)
    chances = logits.log_softmax(dim=1)
    right = chances.gather(1, wanted.clamp(min=0)[:, None])[:, 0]
    read, following, second = _read_along(done.calls, batch, places)
    is_sure = ~scored & (asked >= 0) & (chances.gather(1, asked.clamp(min=0)[:, None])[:, 0] > _SURE)
    factors = _factors(slope[scored], chances[scored], wanted[scored])
    return Targets(
        read=read, next=following, second=second, wanted=wanted,
        asked=torch.where(asked < 0, NONE, asked), is_real=is_real,
        is_hard=-slope.amin(dim=1) > _HARD * slope.abs().sum(dim=1),
        row=torch.where(is_real, _rows(batch)[at], NONE), line=_lines(done.calls, places),
        factors=factors, scale=_scale(factors),
        losses=-right[scored].double(), loss=float(done.loss.detach()),
        counted=float(done.targets), sure=int(is_sure.sum()),
    )  # fmt: skip


def _read_along(calls: Sequence[Call], batch: DeviceBatch, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ids that the model read at each answer, and one and two places on in its row."""
    rows = [call.ids for call in calls if call.ids is not None]
    if sum(ids.numel() for ids in rows) != len(places):  # the model answers at some places of the row alone
        rows = [batch.tokens]
        picked = places
    else:
        picked = torch.arange(len(places), device=places.device)

    def along(by: int) -> Tensor:
        moved = [torch.nn.functional.pad(ids[:, by:], (0, min(by, ids.shape[1])), value=NONE) for ids in rows]
        return torch.cat([each.flatten() for each in moved])[picked]

    return along(0), along(1), along(2)


def _lines(calls: Sequence[Call], places: Tensor) -> Tensor:
    """The row of the model that each answer lies in."""
    shapes = [call.ids.shape for call in calls if call.ids is not None]
    if sum(shape.numel() for shape in shapes) != len(places):
        return torch.full_like(places, NONE)
    sizes = [shape[-1] for shape in shapes for _ in range(shape.numel() // max(shape[-1], 1))]
    return torch.repeat_interleave(torch.tensor(sizes, device=places.device))


def _rows(batch: DeviceBatch) -> Tensor:
    """(B x T,) the sequence that each place of a batch lies in."""
    count, length = batch.labels.shape
    sizes = batch.target_lengths or batch.lengths or (length,) * count
    return torch.repeat_interleave(torch.tensor(sizes, device=batch.labels.device))


def _factors(slope: Tensor, chances: Tensor, wanted: Tensor) -> Tensor | None:
    """The factors (k,) of cross-entropies with these gradients (k, V); None if they are those of no such."""
    if not len(slope):
        return None
    truth = chances.exp()
    truth.scatter_add_(1, wanted[:, None], torch.full_like(truth[:, :1], -1.0))
    size = truth.abs().sum(dim=1)
    factors = slope.abs().sum(dim=1) / size.clamp(min=1e-9)
    off = (slope - factors[:, None] * truth).abs().amax(dim=1)
    is_plain = off <= _SAME * slope.abs().amax(dim=1)
    return factors if bool(is_plain.float().mean() > _NEARLY_ALL) else None


def _scale(factors: Tensor | None) -> float:
    """The factor that nearly all places have; NaN if there is none."""
    if factors is None:
        return math.nan
    middle = float(factors.median())
    is_same = (factors - middle).abs() < _SAME * middle
    return middle if bool(is_same.float().mean() > _NEARLY_ALL) else math.nan

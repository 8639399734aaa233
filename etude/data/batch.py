"""The samples of a micro-batch as arrays, without padding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from etude.data.samples.sample import NO_TARGET, Sample
from etude.prefixes import Row, lay_row

__all__ = ["NO_TARGET", "Batch", "NumpyBatch", "collate", "find_targets", "halves", "with_row"]

Array = TypeVar("Array")
Moved = TypeVar("Moved")


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Array]):
    """One micro-batch, as arrays of numpy or as tensors on a device.

    Samples of one length are B rows of T tokens. Samples of other lengths, and documents that must not see
    those before them, lie end to end in one row; pairs have their sources end to end in `tokens` and their
    targets in `labels`.

    tokens     (B, T) int64
    labels     (B, T) int64, NO_TARGET where nothing is scored
    positions  (B, T) int64, or None: 0, 1, 2 ... along each row
    lengths    of the sequences that lie end to end, where attention stops; None: every row is one sequence
    target_lengths  of the targets of pairs, or None
    scored     (n,) int64, which of the B x T labels are targets; None if all are
    weights    (n,) fp32, how much each target counts; None if each counts 1
    classes    (samples, k) fp32, 1 for each label of a sample, or None
    types      (B, T) int64, 1 in the second text of a pair, or None
    code       (B, T, 4) int64, the kind of each token as code, or None
    task       the name of the task, if a run has several
    row        the tokens that a decoder computes, where these are fewer; it follows from the others
    """

    tokens: Array
    labels: Array
    positions: Array | None = None
    lengths: tuple[int, ...] | None = None
    target_lengths: tuple[int, ...] | None = None
    scored: Array | None = None
    weights: Array | None = None
    classes: Array | None = None
    types: Array | None = None
    code: Array | None = None
    task: str = ""
    row: Row[Array] | None = field(default=None, compare=False)

    def map(self, change: Callable[[Array], Moved]) -> "Batch[Moved]":
        """The same batch with every array changed."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in values.items():
            if isinstance(value, Row):
                values[name] = value.map(change)
            elif not isinstance(value, (tuple, str, type(None))):
                values[name] = change(value)
        return Batch(**values)


NumpyBatch = Batch[np.ndarray[Any, Any]]


def collate(samples: Sequence[Sample], attend_across_documents: bool) -> NumpyBatch:
    """Lay out samples of one task side by side where that needs no padding, else end to end."""
    batch = find_targets(_lay_out(samples, attend_across_documents))
    return replace(batch, task=samples[0].task) if samples[0].task else batch


def find_targets(batch: NumpyBatch) -> NumpyBatch:
    """The batch with `scored` found from its labels, and `weights` (B, T) reduced to those of targets."""
    scored = np.flatnonzero(batch.labels != NO_TARGET)
    weights = None if batch.weights is None else batch.weights.ravel()[scored]
    return replace(batch, scored=None if len(scored) == batch.labels.size else scored, weights=weights)


def with_row(batch: NumpyBatch, share_up_to: int) -> NumpyBatch:
    """The batch with the row that a decoder computes, if it saves anything; share_up_to: as `Row` has it."""
    lengths = batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens)
    if batch.classes is None:
        targets = batch.scored
    elif len(batch.classes) == len(lengths):
        targets = np.cumsum(lengths) - 1
    else:
        return batch
    return replace(batch, row=lay_row(batch.tokens.ravel(), lengths, targets, share_up_to))


def halves(batch: NumpyBatch) -> list[NumpyBatch]:
    """A batch as two with half of its sequences each; itself if it has one."""
    count = len(batch.labels) if batch.lengths is None else len(batch.lengths)
    if count < 2 or (batch.classes is not None and len(batch.classes) != count):
        return [batch]
    weights = None
    if batch.weights is not None:  # at the places of all labels again
        weights = np.zeros(batch.labels.size, dtype=batch.weights.dtype)
        weights[slice(None) if batch.scored is None else batch.scored] = batch.weights
        weights = weights.reshape(batch.labels.shape)
    whole = replace(batch, scored=None, weights=weights, row=None)
    sides = slice(None, count // 2), slice(count // 2, None)
    parts = [find_targets(_take(whole, side)) for side in sides]
    return parts if batch.row is None else [with_row(part, batch.row.share_up_to) for part in parts]


def _take(batch: NumpyBatch, rows: slice) -> NumpyBatch:
    """Some of the sequences of a batch, whose targets are to be found again."""
    if batch.lengths is None:
        return batch.map(lambda array: array[rows])
    read = _stretch(batch.lengths, rows)
    written = read if batch.target_lengths is None else _stretch(batch.target_lengths, rows)
    part = replace(batch, labels=batch.labels[:, written])
    for name in ("tokens", "positions", "types", "code"):
        if (array := getattr(batch, name)) is not None:
            part = replace(part, **{name: array[:, read]})
    return replace(
        part,
        lengths=batch.lengths[rows],
        target_lengths=None if batch.target_lengths is None else batch.target_lengths[rows],
        weights=None if batch.weights is None else batch.weights[:, written],
        classes=None if batch.classes is None else batch.classes[rows],
    )


def _stretch(lengths: tuple[int, ...], rows: slice) -> slice:
    """The places of some sequences that lie end to end."""
    start = sum(lengths[: rows.start or 0])
    return slice(start, start + sum(lengths[rows]))


def _lay_out(samples: Sequence[Sample], attend_across_documents: bool) -> NumpyBatch:
    tokens, labels = [sample.tokens for sample in samples], [sample.labels for sample in samples]
    weighed = [sample.weights for sample in samples if sample.weights is not None]
    weights = np.concatenate(weighed)[None] if weighed else None
    if samples[0].is_pair:
        lengths, target_lengths = tuple(map(len, tokens)), tuple(map(len, labels))
        sources, targets = np.concatenate(tokens)[None], np.concatenate(labels)[None]
        return Batch(
            tokens=sources, labels=targets, lengths=lengths, target_lengths=target_lengths, weights=weights
        )  # fmt: skip
    apart = not attend_across_documents and any(sample.documents[-1] for sample in samples)
    labelled = [sample.classes for sample in samples if sample.classes is not None]
    classes = np.stack(labelled).astype(np.float32) if labelled else None
    types = None
    if labelled and any(sample.second < len(sample.tokens) for sample in samples):
        behind = [sample.positions >= sample.second for sample in samples]
        types = np.concatenate(behind).astype(np.int64)[None]
    coded = [sample.code for sample in samples if sample.code is not None]
    code = np.concatenate(coded)[None] if coded else None
    if not apart and len({len(row) for row in tokens}) == 1:
        rows = np.stack(tokens)
        return Batch(
            tokens=rows, labels=np.stack(labels), classes=classes,
            types=None if types is None else types.reshape(rows.shape),
            code=None if code is None else code.reshape(*rows.shape, -1),
            weights=None if weights is None else weights.reshape(rows.shape),
        )  # fmt: skip
    if apart:
        lengths = tuple(chain.from_iterable(np.bincount(sample.documents).tolist() for sample in samples))
    else:
        lengths = tuple(map(len, tokens))
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    return Batch(
        tokens=np.concatenate(tokens)[None], labels=np.concatenate(labels)[None], positions=positions,
        lengths=lengths, classes=classes, types=types, code=code, weights=weights,
    )  # fmt: skip

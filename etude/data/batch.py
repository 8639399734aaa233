"""The samples of a micro-batch as arrays, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from etude.data.split import NO_TARGET, Ints, Sample, Weights

__all__ = ["NO_TARGET", "Batch", "collate"]


@dataclass(frozen=True)
class Batch:
    """One micro-batch, all int64 of shape (B, T); what is no target is NO_TARGET among the labels.

    Of pairs the sources lie end to end in `tokens`, (1, S), and the targets in `labels`, (1, T), `target_lengths` each.

    Samples of one length are rows. Others, and documents that must not see those before theirs, lie end to end in one
    row: `lengths` tells where attention stops, and `positions` restart there. Of labelled texts there are `classes`,
    (samples, k) fp32, and, if any has a second text, `types`: 1 in the second, else 0. `code`, of shape (B, T, 4), says
    what each token is as code, if that is wanted; `weights`, fp32 as the labels, how much each target counts. `task` is
    which of several tasks it is of.
    """

    tokens: Ints
    labels: Ints
    positions: Ints | None = None
    lengths: tuple[int, ...] | None = None
    classes: npt.NDArray[np.float32] | None = None
    types: Ints | None = None
    target_lengths: tuple[int, ...] | None = None
    code: Ints | None = None
    task: str = ""
    weights: Weights | None = None


def collate(samples: Sequence[Sample], attend_across_documents: bool) -> Batch:
    """Lay out samples of one task side by side where that needs no padding, else end to end."""
    batch = _lay_out(samples, attend_across_documents)
    return replace(batch, task=samples[0].task) if samples[0].task else batch


def _lay_out(samples: Sequence[Sample], attend_across_documents: bool) -> Batch:
    tokens, labels = [sample.tokens for sample in samples], [sample.labels for sample in samples]
    weighed = [sample.weights for sample in samples if sample.weights is not None]
    weights = np.concatenate(weighed)[None] if weighed else None
    if samples[0].is_pair:
        lengths, target_lengths = tuple(map(len, tokens)), tuple(map(len, labels))
        sources, targets = np.concatenate(tokens)[None], np.concatenate(labels)[None]
        return Batch(sources, targets, lengths=lengths, target_lengths=target_lengths, weights=weights)
    apart = not attend_across_documents and any(sample.documents[-1] for sample in samples)
    classes, types = None, None
    if samples[0].classes is not None:
        classes = np.stack([sample.classes for sample in samples if sample.classes is not None]).astype(np.float32)
        if any(sample.second < len(sample.tokens) for sample in samples):
            types = np.concatenate([(sample.positions >= sample.second).astype(np.int64) for sample in samples])
    coded = [sample.code for sample in samples if sample.code is not None]
    code = np.concatenate(coded) if coded else None
    if not apart and len({len(row) for row in tokens}) == 1:
        rows = np.stack(tokens)
        return Batch(
            rows, np.stack(labels), classes=classes, types=None if types is None else types.reshape(rows.shape),
            code=None if code is None else code.reshape(*rows.shape, -1),
            weights=None if weights is None else weights.reshape(rows.shape),
        )  # fmt: skip
    if apart:
        lengths = tuple(chain.from_iterable(np.bincount(sample.documents).tolist() for sample in samples))
    else:
        lengths = tuple(len(row) for row in tokens)
    positions = np.concatenate([np.arange(length) for length in lengths])
    types = None if types is None else types[None]
    flat, each = np.concatenate(tokens)[None], np.concatenate(labels)[None]
    code = None if code is None else code[None]
    return Batch(flat, each, positions[None], lengths, classes, types, code=code, weights=weights)

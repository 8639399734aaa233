"""The samples of a micro-batch as arrays, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from etude.data.split import NO_TARGET, Ints, Sample

__all__ = ["NO_TARGET", "Batch", "collate"]


@dataclass(frozen=True)
class Batch:
    """One micro-batch, all int64 of shape (B, T); what is no target is NO_TARGET among the labels.

    Samples of one length are rows. Others, and documents that must not see those before theirs, lie end to end in one
    row: `lengths` tells where attention stops, and `positions` restart there.
    """

    tokens: Ints
    labels: Ints
    positions: Ints | None = None
    lengths: tuple[int, ...] | None = None


def collate(samples: Sequence[Sample], attend_across_documents: bool) -> Batch:
    """Lay out samples side by side where that needs no padding, else end to end."""
    tokens, labels = [sample.tokens for sample in samples], [sample.labels for sample in samples]
    apart = not attend_across_documents and any(sample.documents[-1] for sample in samples)
    if not apart and len({len(row) for row in tokens}) == 1:
        return Batch(np.stack(tokens), np.stack(labels))
    if apart:
        lengths = tuple(chain.from_iterable(np.bincount(sample.documents).tolist() for sample in samples))
    else:
        lengths = tuple(len(row) for row in tokens)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return Batch(np.concatenate(tokens)[None], np.concatenate(labels)[None], positions[None], lengths)

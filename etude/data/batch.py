"""Samples of unequal length side by side, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.data.split import Ints, Sample

NO_TARGET = -100


@dataclass(frozen=True)
class Batch:
    """One micro-batch, all int64 of shape (B, T); what is no target is NO_TARGET among the labels.

    `positions` and `documents` are given if tokens must not see the documents before theirs; padding has document -1.
    """

    tokens: Ints
    labels: Ints
    positions: Ints | None
    documents: Ints | None


def collate(samples: Sequence[Sample], attend_across_documents: bool) -> Batch:
    """Put samples into rows, padded at the end to the longest of them."""
    # A sample of one document needs no mask: nothing before it can be seen, and padding comes after it.
    apart = not attend_across_documents and any(sample.documents[-1] for sample in samples)
    return Batch(
        tokens=_pad([sample.tokens for sample in samples], 0),
        labels=_pad([sample.labels for sample in samples], NO_TARGET),
        positions=_pad([sample.positions for sample in samples], 0) if apart else None,
        documents=_pad([sample.documents for sample in samples], -1) if apart else None,
    )


def _pad(rows: Sequence[Ints], padding: int) -> Ints:
    padded = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    for row, values in zip(padded, rows):
        row[: len(values)] = values
    return padded

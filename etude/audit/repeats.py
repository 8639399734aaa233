"""Rows of a training set that are there more than once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import Ints, Samples

_MOST_TOKENS = 20_000_000
_EDGE, _INSIDE = 16, 16  # tokens at either end of a row, and between them, by which rows are told apart


@dataclass(frozen=True)
class Repeats:
    """Rows that were looked at, those that are a copy of one before them, and copies of the commonest."""

    rows: int
    copies: int
    most: int

    @property
    def share(self) -> float:
        return self.copies / max(self.rows, 1)


def count_repeats(split: Samples, eos_id: int) -> Repeats:
    """Count the rows of a split with the same tokens; of texts end to end, the documents."""
    spans = split.spans
    starts, ends = np.asarray(spans.starts), np.asarray(spans.ends)
    if len(split) != len(starts):
        starts, ends = _cut(spans.tokens, starts, ends, eos_id)
    is_long = ends - starts > 1
    starts, ends = starts[is_long], ends[is_long]
    if not len(starts):
        return Repeats(0, 0, 0)
    counts = np.unique(_fingerprints(spans.tokens, starts, ends), return_counts=True)[1]
    return Repeats(len(starts), int(len(starts) - len(counts)), int(counts.max()))


def _cut(tokens: npt.NDArray[np.integer], starts: Ints, ends: Ints, eos_id: int) -> tuple[Ints, Ints]:
    """The documents within the first spans: each ends behind its end token."""
    used = np.cumsum(ends - starts) <= _MOST_TOKENS
    used[:1] = True
    firsts, lasts = [], []
    for start, end in zip(starts[used].tolist(), ends[used].tolist()):
        end = min(end, start + _MOST_TOKENS)
        borders = np.flatnonzero(np.asarray(tokens[start:end]) == eos_id) + start + 1
        firsts.append(np.r_[start, borders])
        lasts.append(np.r_[borders, end])
    return np.concatenate(firsts), np.concatenate(lasts)


def _fingerprints(tokens: npt.NDArray[np.integer], starts: Ints, ends: Ints) -> npt.NDArray[np.uint64]:
    """A number (n,) for each span, from its length, its tokens at both ends and some between them."""
    lengths = ends - starts
    marks = lengths.astype(np.uint64)
    for place in range(2 * _EDGE + _INSIDE):
        if place < _EDGE:
            offset = np.minimum(place, lengths - 1)
        elif place < 2 * _EDGE:
            offset = np.maximum(lengths - 1 - (place - _EDGE), 0)
        else:
            offset = lengths * (place - 2 * _EDGE) // _INSIDE
        marks ^= np.asarray(tokens[starts + offset]).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        marks *= np.uint64(0xBF58476D1CE4E5B9)
        marks ^= marks >> np.uint64(29)
    return marks

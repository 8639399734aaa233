"""Rows of a training set that are there more than once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import Ints
from etude.data.split import number_texts

_LEAST_TOKENS = 16  # lines and words repeat in any text


@dataclass(frozen=True)
class Repeats:
    """Rows of enough tokens to be told apart, those equal to one before them, and copies of the commonest.

    coverage  share of all tokens that these rows hold
    """

    rows: int = 0
    copies: int = 0
    most: int = 0
    coverage: float = 0.0

    @property
    def share(self) -> float:
        """Copies over rows; 0 where rows that say enough are not most of the data."""
        return self.copies / max(self.rows, 1) if self.coverage > 0.5 else 0.0


def count_repeats(
    hashes: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8] | None, lengths: Ints
) -> Repeats:
    """Count equal texts (n, 16) that have equal labels (n, k), of rows of `lengths` (n,) tokens."""
    is_long = lengths >= _LEAST_TOKENS
    if not is_long.any():
        return Repeats()
    numbers = number_texts(hashes[is_long])[:, None]
    keys = numbers if labels is None else np.c_[numbers, labels[is_long]]
    counts = np.unique(keys, axis=0, return_counts=True)[1]
    rows = int(is_long.sum())
    coverage = float(lengths[is_long].sum() / max(lengths.sum(), 1))
    return Repeats(rows, rows - len(counts), int(counts.max()), coverage)

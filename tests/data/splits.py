"""Splits of documents whose tokens are numbered."""

import numpy as np

from etude.data.split import (
    Split,
    Texts,
    cut_samples,
)

EOS = 0


def split_of(lengths: list[int], mode: str = "row", seq_len: int = 4, held: set[int] = frozenset()) -> Split:
    """Documents of 1, 2, 3 ... with the end token 0 after each."""
    offsets = np.r_[0, np.cumsum(np.array(lengths) + 1)]
    tokens = np.arange(1, offsets[-1] + 1).astype("<u2")
    tokens[offsets[1:] - 1] = EOS
    kept = np.array([index not in held for index in range(len(lengths))])
    each = np.ones(offsets[-1] + 1, dtype=np.int64)
    each[EOS] = 0
    texts = Texts(tokens, offsets, np.array(lengths, dtype=np.int64), each, EOS)
    return cut_samples(texts, offsets[:-1][kept], offsets[1:][kept], mode, seq_len)

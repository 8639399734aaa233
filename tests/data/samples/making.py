"""Samples of documents whose tokens are known."""

from collections.abc import Callable, Container

import numpy as np

from etude.data.samples.sample import Samples, Texts
from etude.data.samples.texts import cut_rows

Cut = Callable[..., Samples]
EOS = 0


def samples_of(
    lengths: list[int], seq_len: int = 4, cut: Cut = cut_rows, held: Container[int] = ()
) -> Samples:
    """Documents of 1, 2, 3 ... with the end token 0 after each."""
    offsets = np.r_[0, np.cumsum(np.array(lengths) + 1)]
    tokens = np.arange(1, offsets[-1] + 1).astype("<u2")
    tokens[offsets[1:] - 1] = EOS
    kept = np.array([index not in held for index in range(len(lengths))])
    each = np.ones(offsets[-1] + 1, dtype=np.int64)
    each[EOS] = 0
    texts = Texts(tokens, offsets, np.array(lengths, dtype=np.int64), each, EOS)
    return cut(texts, offsets[:-1][kept], offsets[1:][kept], seq_len)

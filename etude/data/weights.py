"""How much the targets of a sample count, by what they are as code."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.lexer import KIND, KINDS, code_of
from etude.data.split import Flags, Ints
from etude.data.tokenize import Tokenizer, token_bytes
from etude.errors import InputError
from etude.recipe.schema import TokenKind


@dataclass(frozen=True)
class TokenWeights:
    """The weight of each of `KINDS`, and how long the text of each id is, in bytes.

    Every stretch of targets is read alone, by the same rules wherever a row was cut out of its document; so what begins
    in the middle of a string or comment may be taken for code up to its end.
    """

    tokenizer: Tokenizer
    sizes: Ints
    by_kind: npt.NDArray[np.float32]

    def of(self, ids: Ints, read: Flags) -> npt.NDArray[np.float32]:
        """Weights (n,) of ids (n,), 1 where nothing is `read`, (n,)."""
        weights = np.ones(len(ids), dtype=np.float32)
        borders = np.flatnonzero(np.diff(np.r_[False, read, False]))
        for begin, end in zip(borders[::2].tolist(), borders[1::2].tolist()):
            weights[begin:end] = self._of_text(ids[begin:end])
        return weights

    def _of_text(self, ids: Ints) -> npt.NDArray[np.float32]:
        known = self.sizes[ids] > 0
        data = self.tokenizer.decode(ids[known].tolist(), skip_special=False).encode()
        ends = self.sizes[ids].cumsum()
        if len(data) != ends[-1] or not data:  # the stretch cuts through a character, whose bytes have no text
            return np.ones(len(ids), dtype=np.float32)
        # The character that each byte belongs to, as spans count characters; a token may be a part of one.
        character = ((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80).cumsum() - 1
        last = len(data) - 1
        firsts, lasts = character[np.minimum(ends - self.sizes[ids], last)], character[np.maximum(ends - 1, 0)] + 1
        spans = list(zip(np.where(known, 0, -1).tolist(), firsts.tolist(), lasts.tolist()))
        return self.by_kind[code_of([data.decode()], spans)[:, KIND]]


def choose_weights(tokenizer: Tokenizer, wanted: Mapping[TokenKind, float]) -> TokenWeights:
    """The weights that a recipe asks for; other kinds weigh 1. Raises: InputError if ids do not tell their bytes."""
    sizes = token_bytes(tokenizer)
    if sizes is None:
        raise InputError(
            "loss.token_weights needs a byte-level tokenizer, whose ids tell which text they stand for; leave it out"
        )
    by_kind = np.ones(len(KINDS), dtype=np.float32)
    for kind, weight in wanted.items():
        by_kind[KINDS.index(kind)] = weight
    return TokenWeights(tokenizer, sizes, by_kind)

"""Which tokens of a text are hidden from a masked language model; from (seed, epoch, sample) alone."""

from dataclasses import dataclass

import numpy as np

from etude.data.split import NO_TARGET, Ints
from etude.data.tokenize import Tokenizer
from etude.errors import InputError

# Of what is hidden: most behind the mask, a part behind another token, a part not at all, as its own token.
_MASKED, _REPLACED = 0.8, 0.1


@dataclass(frozen=True)
class Masking:
    """Hide a share of the tokens of a text, at least one, never `special` ids.

    Of the hidden tokens 80 % become `mask_id`, 10 % a random id, 10 % stay; all are targets. Source:
    arXiv:1810.04805.
    """

    seed: int
    ratio: float
    mask_id: int
    vocab_size: int
    special: tuple[int, ...]

    def hide(self, text: Ints, *, epoch: int, index: int) -> tuple[Ints, Ints]:
        """What the model sees of sample `index` in an epoch, and its targets, NO_TARGET
        elsewhere; both (n,)."""
        draw = np.random.default_rng([self.seed, epoch, index])
        free = np.flatnonzero(~np.isin(text, self.special))
        tokens, labels = text.copy(), np.full(len(text), NO_TARGET, dtype=np.int64)
        chosen = draw.permutation(free)[: max(round(self.ratio * len(free)), 1)]
        labels[chosen] = text[chosen]
        kind = draw.random(len(chosen))
        tokens[chosen[kind < _MASKED]] = self.mask_id
        replaced = chosen[(kind >= _MASKED) & (kind < _MASKED + _REPLACED)]
        tokens[replaced] = draw.integers(0, self.vocab_size, len(replaced))
        return tokens, labels


def choose_masking(tokenizer: Tokenizer, *, seed: int, ratio: float) -> Masking:
    """The masking that fits a tokenizer. Raises: InputError if it has no mask token."""
    mask_id = tokenizer.mask_id
    if mask_id is None:
        raise InputError(
            'the tokenizer has no mask token (<mask> or [MASK]), which train.objective = "masked" needs; '
            "use that of an encoder, or train one with tokenizer.train_vocab_size"
        )
    return Masking(seed, ratio, mask_id, tokenizer.vocab_size, tokenizer.special_ids)

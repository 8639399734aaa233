"""Samples of which a share of the tokens is hidden; from (seed, epoch, sample) alone."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import NO_TARGET, Ints, Sample, Spans, TextSamples, TokenSamples
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Recipe

# Shares of the hidden tokens that show the mask, or another token; the others show themselves.
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
        """Tokens (n,) of sample `index` in an epoch, and its labels, NO_TARGET where nothing is hidden."""
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


@dataclass(frozen=True)
class Hidden:
    """Samples of text whose targets are their hidden tokens, others in each epoch."""

    samples: TextSamples
    masking: Masking

    @property
    def spans(self) -> Spans:
        return replace(self.samples.spans, share=self.masking.ratio)

    @property
    def tokens_per_sample(self) -> float:
        return self.samples.tokens_per_sample

    def __len__(self) -> int:
        return len(self.samples)

    def longest(self, count: int) -> Ints:
        return self.samples.longest(count)

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.samples.at_text(index, values)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        text: Ints = self.samples.at_text(index, self.samples.spans.tokens).astype(np.int64)
        documents = np.r_[0, (text[:-1] == self.samples.eos_id).cumsum()]
        positions = np.arange(len(text)) - np.flatnonzero(np.r_[True, np.diff(documents) > 0])[documents]
        tokens, labels = self.masking.hide(text, epoch=epoch, index=index)
        return Sample(tokens, labels, documents, positions)


def hide_tokens(samples: TextSamples, recipe: Recipe, tokenizer: Tokenizer) -> TokenSamples:
    """The samples as a kind of training wants them: as they are, or with hidden tokens.

    Raises: InputError if the tokenizer has no token for a hidden one.
    """
    if not recipe.kind.hides_tokens:
        return samples
    mask_id = tokenizer.mask_id
    if mask_id is None:
        raise InputError(
            'the tokenizer has no mask token (<mask> or [MASK]), which train.objective = "masked" needs; '
            "use that of an encoder, or train one with tokenizer.train_vocab_size"
        )
    ratio, size = recipe.train.mask_ratio, tokenizer.vocab_size
    return Hidden(samples, Masking(recipe.seed, ratio, mask_id, size, tokenizer.special_ids))

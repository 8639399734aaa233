"""Samples whose targets count by their kind as code."""

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from etude.data.cache import Built
from etude.data.samples.sample import Ints, Sample, Samples, Spans, TokenSamples, Weights
from etude.recipe.schema import Kind, Recipe

_WEIGHED = 1000  # samples over which the mean weight of targets is taken


@dataclass(frozen=True)
class Weighted:
    """Samples with a weight for each label.

    kinds         (tokens,) uint8, kind of each prepared token as code
    kind_weights  (kinds,) fp32
    """

    samples: TokenSamples
    kinds: npt.NDArray[np.uint8]
    kind_weights: Weights

    @property
    def spans(self) -> Spans:
        return self.samples.spans

    @property
    def tokens_per_sample(self) -> float:
        return self.samples.tokens_per_sample

    @property
    def targets_per_sample(self) -> float:
        """Mean weight of the targets of up to 1,000 evenly spaced samples."""
        some = min(len(self), _WEIGHED)
        samples = [self.sample(index * len(self) // some) for index in range(some)]
        weighed = [(each.weights, each.labels >= 0) for each in samples if each.weights is not None]
        sums = [float(weights[is_target].sum()) for weights, is_target in weighed]
        return sum(sums) / len(sums)

    def __len__(self) -> int:
        return len(self.samples)

    def longest(self, count: int) -> Ints:
        return self.samples.longest(count)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        kinds = self.samples.at_labels(index, self.kinds)
        return replace(self.samples.sample(index, epoch), weights=self.kind_weights[kinds])


def weigh_tokens(samples: TokenSamples, recipe: Recipe, built: Built, use: str) -> Samples:
    """The samples of training with the weights of loss.token_weights; without, scores stay comparable."""
    if not recipe.loss.token_weights or use != "train":
        return samples
    names = get_args(Kind)
    kinds = built.numbers("kinds.bin", np.uint8, most=len(names) - 1)
    if len(kinds) != len(samples.spans.tokens):
        raise built.damaged("kinds.bin is not of its tokens")
    weights = [recipe.loss.token_weights.get(name, 1.0) for name in names]
    return Weighted(samples, kinds, np.array(weights, dtype=np.float32))

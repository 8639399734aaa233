"""Training on hidden tokens."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from etude.data.corpus import Corpus
from etude.engine.batch import DeviceBatch
from etude.engine.cross_entropy import linear_cross_entropy
from etude.models.encoder import Encoder
from etude.objectives.kind import Kind, count_targets
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Masked(Kind):
    """Predict hidden tokens from those on both sides; logits are computed for these only."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        encoder, labels = cast(Encoder, model), batch.labels.flatten()
        hidden = model(batch.tokens, lengths=batch.lengths).flatten(0, 1)  # (B, T, C) -> (N, C)
        if batch.scored is not None:
            labels, hidden = labels[batch.scored], hidden[batch.scored]
        rows = encoder.masked_rows(hidden)
        loss = linear_cross_entropy(
            rows, encoder.head_weight(), labels, bias=encoder.head_bias(), weights=batch.weights
        )
        return loss, count_targets(labels, batch.weights)

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        return {"perplexity"}

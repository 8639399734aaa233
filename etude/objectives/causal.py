"""Training on the next token: texts, code and the answers of conversations."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from etude.data.corpus import Corpus
from etude.engine.batch import DeviceBatch
from etude.engine.cross_entropy import linear_cross_entropy
from etude.evaluate.exam import Exam
from etude.models.foreign import scored_logits
from etude.objectives.kind import Kind, Measured, count_targets
from etude.objectives.writing import measure_texts, names_of_texts
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Causal(Kind):
    """Predict the next token; labels are shifted already. Logits are computed for targets only."""

    is_worth_scoring_untrained = False
    writes_text = True

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = batch.labels.flatten()
        if batch.scored is not None:
            labels = labels[batch.scored]
        if hasattr(model, "head_weight"):
            hidden: torch.Tensor = model(batch.tokens, positions=batch.positions, lengths=batch.lengths)
            hidden = hidden.flatten(0, 1)  # (B, T, C) -> (N, C)
            if batch.scored is not None:
                hidden = hidden[batch.scored]
            weight, bias = model.head_weight(), getattr(model, "head_bias", lambda: None)()  # type: ignore[operator]
            loss = linear_cross_entropy(hidden, weight, labels, bias=bias, weights=batch.weights)
        else:
            logits = scored_logits(model, batch.tokens, batch.positions, batch.lengths, batch.scored)
            if batch.weights is None:
                loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            else:
                loss = F.cross_entropy(logits.float(), labels, reduction="none").mul(batch.weights).sum()
        return loss, count_targets(labels, batch.weights)

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        of_bytes = {"bits_per_byte"} if corpus.token_bytes is not None else set()
        return {"perplexity"} | of_bytes | names_of_texts(recipe, corpus)

    def measure(self, exam: Exam) -> Measured:
        return measure_texts(exam, self.score(exam))

    def token_bytes(self, corpus: Corpus) -> np.ndarray | None:
        return corpus.token_bytes

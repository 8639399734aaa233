"""Training on the next token: texts, code and the answers of conversations."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from etude.data.corpus import Corpus
from etude.engine.batch import DeviceBatch
from etude.engine.cross_entropy import linear_cross_entropy, target_losses
from etude.evaluate.exam import Exam
from etude.models.foreign import scored_logits
from etude.objectives.executing import measure_programs, names_of_programs
from etude.objectives.kind import Kind, Measured, count_targets
from etude.objectives.positions import ByPosition, is_long
from etude.objectives.writing import measure_texts, names_of_texts
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Causal(Kind):
    """Predict the next token; labels are shifted already. Logits are computed for targets only."""

    is_worth_scoring_untrained = False
    writes_text = True

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = _labels(batch)
        if hasattr(model, "head_weight"):
            hidden, weight, bias = _hidden(model, batch)
            loss = linear_cross_entropy(hidden, weight, labels, bias=bias, weights=batch.weights)
        else:
            logits = scored_logits(model, batch.tokens, batch.positions, batch.lengths, batch.scored)
            if batch.weights is None:
                loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            else:
                loss = F.cross_entropy(logits.float(), labels, reduction="none").mul(batch.weights).sum()
        return loss, count_targets(labels, batch.weights)

    def losses(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """The loss of each target in nats, (n,) fp32, without gradients."""
        labels = _labels(batch)
        if hasattr(model, "head_weight"):
            hidden, weight, bias = _hidden(model, batch)
            return target_losses(hidden, weight, labels, bias=bias)
        logits = scored_logits(model, batch.tokens, batch.positions, batch.lengths, batch.scored)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        of_bytes = {"bits_per_byte"} if corpus.token_bytes is not None else set()
        return {"perplexity"} | of_bytes | names_of_texts(recipe, corpus) | names_of_programs(recipe)

    def measure(self, exam: Exam) -> Measured:
        return measure_programs(exam, self._measure(exam))

    def _measure(self, exam: Exam) -> Measured:
        if not is_long(exam.recipe.train.seq_len):
            return measure_texts(exam, self.score(exam))
        by_position = ByPosition(self.losses, exam.recipe.train.seq_len)
        measured = measure_texts(exam, self.score(exam, by_position))
        return replace(measured, figures=measured.figures | by_position.figures(exam.world))

    def token_bytes(self, corpus: Corpus) -> np.ndarray | None:
        return corpus.token_bytes


def _labels(batch: DeviceBatch) -> torch.Tensor:
    """The ids of the targets, (n,)."""
    labels = batch.labels.flatten()
    return labels if batch.scored is None else labels[batch.scored]


def _hidden(model: Any, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The states (n, C) that the targets follow from, and weight (V, C) and bias (V,) of the head."""
    row = {} if batch.row is None else {"row": batch.row}
    hidden: torch.Tensor = model(batch.tokens, positions=batch.positions, lengths=batch.lengths, **row)
    hidden = hidden.flatten(0, 1)  # (B, T, C) -> (B x T, C)
    if batch.scored is not None and batch.row is None:
        hidden = hidden[batch.scored]
    return hidden, model.head_weight(), getattr(model, "head_bias", lambda: None)()

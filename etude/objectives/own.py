"""Training with a loss that the user brings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from etude.data.corpus import Corpus
from etude.engine.batch import DeviceBatch
from etude.evaluate.exam import Exam
from etude.objectives.kind import Kind, Measured
from etude.objectives.writing import measure_texts, names_of_texts
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class OwnLoss(Kind):
    """A function `loss(model, batch) -> (sum of losses, number of targets)`."""

    loss: Callable[[nn.Module, DeviceBatch], tuple[torch.Tensor, Any]]
    is_worth_scoring_untrained = False
    writes_text = True

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = self.loss(model, batch)
        return loss, torch.as_tensor(targets, dtype=torch.float32, device=loss.device)

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        return names_of_texts(recipe, corpus) | ({"perplexity"} if corpus.labels is None else set())

    def measure(self, exam: Exam) -> Measured:
        return measure_texts(exam, self.score(exam))

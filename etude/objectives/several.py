"""Training of several tasks over one model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from etude.data.mixture import Mixture
from etude.engine.batch import DeviceBatch
from etude.evaluate.tasks import Score
from etude.objectives.kind import Kind


@dataclass(frozen=True)
class Several(Kind):
    """Several kinds, each for the micro-batches of its task.

    weights: of a target of each task; one over the mean targets of its samples, so that a sample counts as
    much as another, whatever its task, and the ratios of the tasks are those of their samples.
    """

    parts: Mapping[str, Kind]
    weights: Mapping[str, float]

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = self.parts[batch.task].loss_sum(model, batch)
        return loss * self.weights[batch.task], targets * self.weights[batch.task]


def join_scores(scores: Mapping[str, Score], train: Mixture) -> Score:
    """The mean loss of all tasks, each weighed by its samples in training."""
    loss = sum(count * scores[name].loss for name, count in zip(train.parts, train.counts)) / len(train)
    parts = [(count / len(train), scores[name].error) for name, count in zip(train.parts, train.counts)]
    known = [share * error for share, error in parts if error is not None]
    joined = math.hypot(*known) if len(known) == len(parts) else None
    return Score(loss, sum(score.targets for score in scores.values()), None, joined)

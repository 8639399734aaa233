"""Code that users bring: a model that is none of etude's, its loss and a metric."""

from collections.abc import Iterable

import torch
from torch import nn

from etude.engine.batch import DeviceBatch


class Bigram(nn.Module):
    """A model that is none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(512, 512)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.table(tokens)
        return logits


def bigram_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
    logits = model(batch.tokens)
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), reduction="sum"
    ), batch.labels.numel()


def accuracy(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
    right = total = 0
    for batch in batches:
        right += int((model(batch.tokens).argmax(-1) == batch.labels).sum())
        total += batch.labels.numel()
    return right / total

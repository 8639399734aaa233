"""All that the loop knows of what it trains."""

from typing import Protocol

import torch
from torch import nn

from etude.engine.batch import DeviceBatch


class Objective(Protocol):
    """A loss that is a sum over targets, so that micro-batches and ranks add up exactly."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32; or their weighted sums."""
        ...

"""The model on samples it is not trained on."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from etude.data.batch import NumpyBatch
from etude.engine.batch import to_device
from etude.engine.loop import Objective
from etude.engine.precision import Precision
from etude.engine.world import World


@dataclass(frozen=True)
class Score:
    """Mean loss in nats per target over all ranks; bits per byte, where tokens stand for bytes.

    parts  (batches, 3) of this rank: sum of losses, targets, and bytes or 0
    """

    loss: float
    targets: int
    bits_per_byte: float | None
    parts: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[NumpyBatch],
    objective: Objective,
    precision: Precision,
    world: World,
    token_bytes: np.ndarray | None = None,
) -> Score:
    """Sum of losses over sum of targets of this rank's batches and all others'; never a mean of means.

    Uses no random numbers, and leaves the model in the mode it was in. `token_bytes` (V,) holds the bytes a
    token stands for.
    """
    pairs: list[torch.Tensor] = []
    sizes: list[int] = []
    with without_dropout(model):
        for batch in batches:
            with precision.autocast():
                pairs.append(torch.stack(objective.loss_sum(model, to_device(batch, world.device))))
            scored = batch.labels[batch.labels != -100]
            sizes.append(0 if token_bytes is None else int(token_bytes[scored].sum()))
    # fp64, since sums over millions of targets need more than fp32 holds; on the CPU, since mps has none.
    sums = torch.stack(pairs).cpu().double() if pairs else torch.zeros(0, 2, dtype=torch.float64)
    each = torch.tensor(sizes, dtype=torch.float64)
    totals = torch.cat((sums.sum(0), each.sum()[None]))
    world.total([totals])
    loss_sum, targets, size = totals[0].item(), int(totals[1]), int(totals[2])
    if not targets:
        return Score(math.nan, 0, None)
    bits = loss_sum / math.log(2) / size if size else None
    return Score(loss_sum / targets, targets, bits, torch.column_stack((sums, each)).numpy())


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model into the mode in which it is used, and back into the one it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

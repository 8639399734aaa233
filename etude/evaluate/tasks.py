"""The model on samples it is not trained on."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from etude.data.batch import NumpyBatch
from etude.engine.batch import to_device
from etude.engine.loop import Objective
from etude.engine.out_of_memory import batches_in_parts
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.interruption import interruption_point

_FEW_BATCHES = 8  # of which a standard error would be worth little


@dataclass(frozen=True)
class Score:
    """Mean loss in nats per target over all ranks; bits per byte, where tokens stand for bytes.

    error  standard error of the loss from the choice of rows; None of too few batches to tell
    parts  (batches, 3) of this rank: sum of losses, targets, and bytes or 0
    """

    loss: float
    targets: int
    bits_per_byte: float | None
    error: float | None = None
    parts: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def ratios(self) -> dict[str, np.ndarray]:
        """Columns (batches, 2) of this rank whose sums make the loss, and bits per byte where known."""
        assert self.parts is not None
        ratios = {"loss": self.parts[:, :2]}
        if self.parts[:, 2].sum():
            ratios["bits_per_byte"] = np.column_stack([self.parts[:, 0] / np.log(2), self.parts[:, 2]])
        return ratios


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

    def measure(batch: NumpyBatch) -> torch.Tensor:
        with precision.autocast():
            return torch.stack(objective.loss_sum(model, to_device(batch, world.device)))

    parts = batches_in_parts()
    with without_dropout(model):
        for batch in batches:
            interruption_point()
            done = parts.do(batch, measure)
            pairs.append(done[0] if len(done) == 1 else torch.stack(done).sum(dim=0))
            scored = batch.labels[batch.labels != -100]
            sizes.append(0 if token_bytes is None else int(token_bytes[scored].sum()))
    return join(pairs, sizes, world)


def join(pairs: Sequence[torch.Tensor], sizes: Sequence[int], world: World, *beside: torch.Tensor) -> Score:
    """The score of batches with (2,) sum of losses and targets each, and bytes or 0, over all ranks.

    beside: tensors that are summed over the ranks in the same exchange, in place.
    """
    # fp64, since sums over millions of targets need more than fp32 holds; on the CPU, since mps has none.
    sums = torch.stack([*pairs]).cpu().double() if pairs else torch.zeros(0, 2, dtype=torch.float64)
    losses, counts = sums[:, 0], sums[:, 1]
    each = torch.tensor(sizes, dtype=torch.float64)
    products = [(losses**2).sum(), (losses * counts).sum(), (counts**2).sum()]
    totals = torch.stack([losses.sum(), counts.sum(), each.sum(), *products, torch.tensor(float(len(sums)))])
    world.total([totals, *beside])
    loss_sum, targets, size = totals[0].item(), int(totals[1]), int(totals[2])
    if not targets:
        return Score(math.nan, 0, None)
    bits = loss_sum / math.log(2) / size if size else None
    error = _standard_error(loss_sum / targets, targets, *totals[3:].tolist())
    return Score(loss_sum / targets, targets, bits, error, torch.column_stack((sums, each)).numpy())


def _standard_error(
    mean: float, targets: int, squares: float, products: float, sizes: float, batches: float
) -> float | None:
    """Standard error of a ratio of sums over batches: of squared losses, of losses times targets, and of
    squared targets.

    Source: Cochran, Sampling Techniques (1977), section 6.
    """
    if batches < _FEW_BATCHES or not math.isfinite(squares):
        return None
    scatter = max(squares - 2 * mean * products + mean**2 * sizes, 0.0)
    return math.sqrt(scatter * batches / (batches - 1)) / targets


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model into the mode in which it is used, and back into the one it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

"""The loss of a causal model by the position of its targets, where the context is long."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from etude.engine.batch import DeviceBatch
from etude.engine.world import World

_FIRST, _LONG = 256, 1024


def is_long(seq_len: int) -> bool:
    """True for samples whose loss is worth telling by position."""
    return seq_len >= _LONG


@dataclass
class ByPosition:
    """An objective for an evaluation that keeps what it measured by position, in doublings of 256 tokens.

    losses   the loss of each target of a batch, (n,)
    seq_len  tokens of a sample at most
    """

    losses: Callable[[nn.Module, DeviceBatch], Tensor]
    seq_len: int
    _sums: list[Tensor] = field(default_factory=list)

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32."""
        losses = self.losses(model, batch)
        places = batch.positions
        if places is None:
            places = torch.arange(batch.tokens.shape[1], device=losses.device).expand(batch.tokens.shape)
        places = places.flatten() if batch.scored is None else places.flatten()[batch.scored]
        part = torch.zeros_like(places)
        for edge in self._edges():
            part += places >= edge
        pairs = torch.stack((losses, torch.ones_like(losses)), dim=1)
        sums = pairs.new_zeros(len(self._edges()) + 1, 2).index_add_(0, part, pairs)
        self._sums.append(sums)
        loss, targets = sums.sum(dim=0)
        return loss, targets

    def figures(self, world: World) -> dict[str, float]:
        """Mean loss by range of positions, as `loss/256-511`, over all ranks; empty for a single range."""
        edges = [0, *self._edges(), self.seq_len]
        sums = torch.zeros(len(edges) - 1, 2, dtype=torch.float64)
        for each in self._sums:
            sums += each.cpu().double()
        world.total([sums])
        ranges = zip(edges, edges[1:], sums.tolist())
        found = {f"loss/{low}-{high - 1}": loss / targets for low, high, (loss, targets) in ranges if targets}
        return found if len(found) > 1 else {}

    def _edges(self) -> list[int]:
        edges, edge = [], _FIRST
        while edge < self.seq_len:
            edges.append(edge)
            edge *= 2
        return edges

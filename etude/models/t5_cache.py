"""The memory of an encoder-decoder that writes: keys and values of its sources, and of the tokens so far."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Columns by which a cache grows: fewer would be copied more often, more be held without need.
_COLUMNS = 64


class T5Cache:
    """The memory of the decoder for B rows; those that began later have their tokens in the last columns.

    keys, values              a (B, H, columns, D) for each layer, of the tokens read; more columns come as
                              needed
    cross_keys, cross_values  a (B, H, S, D) for each layer, of the sources, S the longest
    lengths                   (B,) int64, of the sources
    starts                    (B,) int64, the column of the first token of a row
    bias                      (1, H, 1, capacity), for distances capacity - 1 ... 1, 0

    A tensor for each layer, so that what is moved takes the memory of one layer more, not of all.
    """

    def __init__(
        self, cross_keys: list[Tensor], cross_values: list[Tensor], lengths: Tensor, bias: Tensor
    ) -> None:
        self.cross_keys, self.cross_values, self.lengths, self.bias = cross_keys, cross_values, lengths, bias
        self.keys, self.values = ([kept[:, :, :0] for kept in cross_keys] for _ in range(2))
        self.length, self.starts = 0, torch.zeros_like(lengths)
        self._first, self._is_even = (
            0,
            True,
        )  # the first column that a row uses, and whether it is that of all
        self._origins = torch.arange(
            len(lengths), device=lengths.device
        )  # which source each row goes on from
        self._look()

    def begin(self) -> Tensor:
        """Bias (1 or B, H, 1, columns) of self-attention for the token to be read; there then is
        room for it."""
        if self.length == self.keys[0].shape[2]:
            for kept in (self.keys, self.values):
                _change(kept, lambda part: functional.pad(part[:, :, self._first :], (0, 0, 0, _COLUMNS)))
            self.starts, self.length, self._first = self.starts - self._first, self.length - self._first, 0
        columns = self.length + 1 - self._first
        assert columns <= self.bias.shape[-1], "the cache is full"
        bias = self.bias[..., self.bias.shape[-1] - columns :]
        if self._is_even:
            return bias
        before = torch.arange(self._first, self.length + 1, device=self.starts.device) < self.starts[:, None]
        return bias.masked_fill(before[:, None, None], -torch.inf)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the (B, H, 1, D) keys and values of the token being read in their place; returns
        all up to it."""
        seen = slice(self._first, self.length + 1)
        for kept, new in ((self.keys[layer], keys), (self.values[layer], values)):
            kept[:, :, self.length] = new[:, :, 0]
        return self.keys[layer][:, :, seen], self.values[layer][:, :, seen]

    def select(self, rows: Tensor | Sequence[int]) -> None:
        """Go on with these rows in this order; a row may be dropped, or taken several times."""
        chosen = torch.as_tensor(rows, device=self.lengths.device)
        for kept in (self.keys, self.values):
            _change(kept, lambda part: part[chosen])
        self.starts = self.starts[chosen]
        before, self._origins = self._origins, self._origins[chosen]
        if torch.equal(before, self._origins):  # beams of a source changed places among themselves
            return
        for kept in (self.cross_keys, self.cross_values):
            _change(kept, lambda part: part[chosen])
        self.lengths = self.lengths[chosen]
        self._look()

    def refill(self, rows: Sequence[int], fresh: "T5Cache") -> None:
        """Begin anew in these rows, each with a source of a cache that has read no token."""
        assert fresh.length == 0
        chosen, width = torch.tensor(rows, device=self.lengths.device), fresh.cross_keys[0].shape[2]
        more = width - self.cross_keys[0].shape[2]
        for kept, new in ((self.cross_keys, fresh.cross_keys), (self.cross_values, fresh.cross_values)):
            if more > 0:
                _change(kept, lambda part: functional.pad(part, (0, 0, 0, more)))
            for mine, theirs in zip(kept, new):
                mine[chosen, :, :width] = theirs
        self.lengths[chosen], self.starts[chosen] = fresh.lengths, self.length
        self._origins[chosen] = fresh._origins + self._origins.max() + 1
        self._look()

    def _look(self) -> None:
        """Find what the rows that are left have in common, so that no step has to."""
        if not len(self.lengths):
            return
        width, shortest = int(self.lengths.max()), int(self.lengths.min())
        for kept in (self.cross_keys, self.cross_values):
            _change(kept, lambda part: part[:, :, :width])
        column = torch.arange(width, device=self.lengths.device)
        # (B, 1, 1, S), which places of the longest source a row has; None for all
        self.mask = None if shortest == width else (column < self.lengths[:, None])[:, None, None]
        self._first, self._is_even = int(self.starts.min()), bool((self.starts == self.starts[0]).all())


def _change(parts: list[Tensor], change: Callable[[Tensor], Tensor]) -> None:
    """Put something else in the place of each tensor, one after another."""
    for index, part in enumerate(parts):
        parts[index] = change(part)

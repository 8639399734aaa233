"""Samples that lie end to end in one row, without padding: their places, computed once a forward."""

from collections.abc import Hashable, Sequence
from itertools import accumulate, groupby
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value", bound=Hashable)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; the host does not wait for the copy to a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Ends:
    """The ends of samples of lengths that are the same in all rows.

    Compiled code hands it on without a look, else it would be compiled again for each set of lengths.
    """

    def __init__(self, lengths: tuple[int, ...], rows: int = 1) -> None:
        self.lengths, self._rows = lengths, rows
        self._ends: Tensor | None = None

    def on(self, device: torch.device) -> Tensor:
        """0 and the ends over all rows, (n + 1,) int32; the first layer makes it, the others share it."""
        if self._ends is None:
            ends = torch.tensor([*accumulate(self.lengths * self._rows, initial=0)], dtype=torch.int32)
            self._ends = send(ends, device)
        return self._ends


def find_firsts(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(n,) int64 on the device, the place of the first token of each sample."""
    return send(torch.tensor([*accumulate(lengths, initial=0)][:-1]), device)


def find_lasts(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(n,) int64 on the device, the place of the last token of each sample."""
    return send(torch.tensor([*accumulate(lengths)]) - 1, device)


def find_places(lengths: Sequence[int], order: Sequence[int], device: torch.device) -> Tensor:
    """(T,) int64 on the device, the places of all tokens, with the samples in another order."""
    firsts = [*accumulate(lengths, initial=0)]
    places = [torch.arange(firsts[sample], firsts[sample + 1]) for sample in order]
    return send(torch.cat(places), device)


def last_states(hidden: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """(n, C) of the last token of each sample: of each row of (B, T, C), or end to end in (1, T, C)."""
    return hidden[:, -1] if lengths is None else hidden[0, find_lasts(lengths, hidden.device)]


def first_states(hidden: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """(n, C) of the first token of each sample; shapes as for `last_states`."""
    return hidden[:, 0] if lengths is None else hidden[0, find_firsts(lengths, hidden.device)]


def shift_right(tokens: Tensor, lengths: Sequence[int], start_id: int) -> Tensor:
    """Decoder inputs (1, T): start_id before each sample of tokens (1, T), without its last token."""
    given = tokens.roll(1)
    given[0, find_firsts(lengths, tokens.device)] = start_id
    return given


def by_length(lengths: Sequence[int]) -> list[int]:
    """The samples in an order that brings equal lengths together, short ones first."""
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def count_equal(values: Sequence[Value]) -> list[tuple[Value, int]]:
    """Each value, and the number of times that it stands there in a row."""
    return [(value, len(list(same))) for value, same in groupby(values)]

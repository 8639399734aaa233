"""The keys and values of a decoder that writes text, and what the next tokens see of them.

B rows, T tokens, H heads of keys and values, D head_dim
"""

import torch
from torch import Tensor

from etude.models.decoder_config import DecoderConfig


class Cache:
    """Rotated keys and values of B sequences of at most `capacity` tokens.

    A layer with a window keeps the last tokens of it alone: what it needs does not grow with the sequence.

    keys, values: of each layer, (B, H, room, D); the token at place p lies at p % room, room being `capacity`
        or the window
    lengths: of the sequences, by now
    """

    def __init__(
        self, config: DecoderConfig, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.capacity, self.device, self.dtype = capacity, device, dtype
        rooms = [min(config.window(layer) or capacity, capacity) for layer in range(config.n_layer)]
        shapes = [(rows, config.n_kv_head, room, config.head_dim) for room in rooms]
        # Zeros: what a mask hides is still multiplied by its weight of zero.
        self.keys, self.values = (
            [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes] for _ in range(2)
        )
        self.lengths = [0] * rows

    def fill(self, layer: int, lengths: tuple[int, ...], keys: Tensor, values: Tensor) -> None:
        """Take the (1, T, H, D) keys and values of prompts that lie end to end."""
        for cached, given in ((self.keys[layer], keys), (self.values[layer], values)):
            room = cached.shape[2]
            for row, part in enumerate(torch.split(given[0], list(lengths))):
                last = part[-room:]
                turned = last.roll(len(part) % room, dims=0) if len(part) > room else last
                cached[row, :, : len(last)] = turned.transpose(0, 1)

    def extend(self, layer: int, places: "Places", keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the (B, 1, H, D) keys and values of one token a row at its place; returns those to look at."""
        cached = self.keys[layer], self.values[layer]
        room = cached[0].shape[2]
        for kept, given in zip(cached, (keys, values)):
            if places.is_even:
                kept[:, :, (places.reach - 1) % room] = given[:, 0]
            else:
                kept[places.rows, :, places.slots(room)] = given[:, 0]
        return cached[0][:, :, : places.reach], cached[1][:, :, : places.reach]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the (1, T, H, D) of the one sequence behind the P that it has; returns all, (1, H, P + T, D).

        No window may end before the last of them.
        """
        first, last = self.lengths[0], self.lengths[0] + keys.shape[1]
        cached = self.keys[layer], self.values[layer]
        for kept, given in zip(cached, (keys, values)):
            kept[:, :, first:last] = given.transpose(1, 2)
        return cached[0][:, :, :last], cached[1][:, :, :last]

    def copy_row(self, row: int, other: "Cache", other_row: int, length: int | None = None) -> None:
        """Let a row be that of a cache of the same model, or its first tokens where no window has ended."""
        length = other.lengths[other_row] if length is None else length
        for mine, theirs in zip((*self.keys, *self.values), (*other.keys, *other.values)):
            filled = min(length, theirs.shape[2])
            mine[row, :, :filled] = theirs[other_row, :, :filled]
        self.lengths[row] = length


class Places:
    """Places of the next token of each row, and the part of a cache that it sees.

    at     (B,) int on the device
    reach  number of places that are looked at: the filled ones, or as many as asked for, all of them behind a
           mask that is made of `at` alone. Then no number of the host is part of the work.
    """

    def __init__(self, cache: Cache, at: Tensor, reach: int | None = None) -> None:
        self.at, self.reach = at, reach or max(cache.lengths) + 1
        self.is_even = reach is None and len(set(cache.lengths)) == 1
        self.rows = torch.arange(len(at), device=at.device)
        self._filled = min(cache.lengths) + 1 if reach is None else 0  # in every row
        self._dtype = cache.dtype
        self._slots: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}

    def slots(self, room: int) -> Tensor:
        """(B,) the places in a cache of so much room; made once for all layers of it."""
        if room not in self._slots:
            self._slots[room] = self.at % room
        return self._slots[room]

    def mask(self, seen: int) -> Tensor | None:
        """(B, 1, 1, seen) to be added to the scores of the first places of a cache; None: all are filled.

        A full window needs no mask: what it does not reach has been written over.
        """
        if self._filled >= seen:
            return None
        if seen not in self._masks:
            # Kernels of GPUs copy a mask whose rows are not multiples of 8 apart, once a layer.
            places = torch.arange(-(-seen // 8) * 8, device=self.at.device)
            is_hidden = places > self.at[:, None, None, None]
            empty = torch.zeros(is_hidden.shape, dtype=self._dtype, device=self.at.device)
            self._masks[seen] = empty.masked_fill(is_hidden, -torch.inf)[..., :seen]
        return self._masks[seen]

"""Sequences that a decoder goes on with side by side; they join and leave between two tokens."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from etude.models.cache import Cache
from etude.models.decoder import Decoder
from etude.prefixes import ANY_LENGTH
from etude.serve.prefixes import Prefixes

_FEWEST_PLACES = 64


class Rows:
    """The rows of a decoder's cache that are in use: the first ones, without a gap.

    shared  tokens of the last prompt that were not read again
    """

    def __init__(self, model: Decoder, prefixes: Prefixes) -> None:
        self.model, self.prefixes, self.count, self.shared = model, prefixes, 0, 0
        self._device = model.head_weight().device
        windows = (model.config.window(layer) for layer in range(model.config.n_layer))
        # Behind the end of a window the first tokens are gone, and nothing can be shared.
        self._longest_shared = min((window for window in windows if window), default=ANY_LENGTH)
        self._cache: Cache | None = None

    def join(self, ids: Sequence[int]) -> Tensor:
        """Read a prompt into a new row behind the others; logits (1, V) of its next token."""
        cache, first = self._make(1, len(ids)), 0
        is_shareable = len(ids) <= self._longest_shared
        if is_shareable and (found := self.prefixes.find(ids)):
            first, kept = found
            cache.copy_row(0, kept, 0, first)
        tokens = torch.tensor([ids[first:]], dtype=torch.int64, device=self._device)
        positions = torch.arange(first, len(ids), device=self._device)[None]
        hidden = self.model.forward(tokens, positions=positions, lengths=(len(ids) - first,), cache=cache)
        self._make_room(self.count + 1, len(ids) + 1)
        assert self._cache is not None
        self._cache.copy_row(self.count, cache, 0)
        self.count, self.shared = self.count + 1, first
        if is_shareable:
            self.prefixes.keep(ids, cache)
        return self.model.head(hidden[0, -1:])

    def leave(self, row: int) -> None:
        """End a row; the last one takes its place."""
        assert self._cache is not None
        self.count -= 1
        if row < self.count:
            self._cache.copy_row(row, self._cache, self.count)
        self._cache.lengths[self.count] = 0
        if not self.count:
            self._cache = None

    def advance(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after the next token (B,) of each row."""
        assert self._cache is not None
        self._make_room(self.count, max(self._cache.lengths) + 1)
        # A view of the rows in use, as a cache of their number.
        used = copy.copy(self._cache)
        used.keys, used.values = ([each[: self.count] for each in part] for part in (used.keys, used.values))
        used.lengths = self._cache.lengths[: self.count]
        logits = self.model.advance(tokens.to(self._device), used)
        self._cache.lengths[: self.count] = used.lengths
        return logits

    def _make_room(self, rows: int, length: int) -> None:
        """See to places for so many rows of such a length; twice as many where there are too few."""
        had = self._cache
        if had is not None and rows <= len(had.lengths) and length <= had.capacity:
            return
        most_rows, most_places = (len(had.lengths), had.capacity) if had else (1, _FEWEST_PLACES)
        while most_rows < rows:
            most_rows *= 2
        while most_places < length:
            most_places *= 2
        self._cache = self._make(most_rows, most_places)
        for row in range(self.count if had else 0):
            assert had is not None
            self._cache.copy_row(row, had, row)

    def _make(self, rows: int, capacity: int) -> Cache:
        kind = self._device.type
        is_mixed = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if is_mixed else self.model.model.norm.weight.dtype
        return Cache(self.model.config, rows, capacity, dtype=dtype, device=self._device)

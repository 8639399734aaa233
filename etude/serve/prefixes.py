"""Keys and values of prompts, kept for those that begin alike."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from etude.models.cache import Cache

_MOST_PROMPTS = 256
_LEAST_SHARED = 16  # tokens; to copy fewer is not worth it


class Kept(NamedTuple):
    """A prompt that has been read, and the cache of one row that holds it."""

    ids: npt.NDArray[np.int64]
    cache: Cache
    size: int


class Prefixes:
    """The prompts that were used last, up to so many bytes; those that were used longest ago go first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, ids: Sequence[int]) -> tuple[int, Cache] | None:
        """The number of tokens that a kept prompt begins with in common, never all, and its cache."""
        asked = np.asarray(ids, dtype=np.int64)
        shared = {key: _count_shared(kept.ids, asked[:-1]) for key, kept in self._kept.items()}
        best = max(shared, key=lambda key: shared[key], default=None)
        if best is None or shared[best] < _LEAST_SHARED:
            return None
        self._kept.move_to_end(best)
        return shared[best], self._kept[best].cache

    def keep(self, ids: Sequence[int], cache: Cache) -> None:
        """Keep a prompt; those that it begins with are no longer needed."""
        array = np.asarray(ids, dtype=np.int64)
        size = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
        if len(ids) < _LEAST_SHARED or size > self.most_bytes:
            return
        for key, kept in list(self._kept.items()):
            if len(kept.ids) <= len(array) and np.array_equal(kept.ids, array[: len(kept.ids)]):
                self._forget(key)
        self._kept[array.tobytes()] = Kept(array, cache, size)
        self.bytes += size
        while self.bytes > self.most_bytes or len(self._kept) > _MOST_PROMPTS:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        self.bytes -= self._kept.pop(key).size


def _count_shared(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length

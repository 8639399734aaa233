"""The allocators of tensors, replayed: what they count, and on a GPU what they take from the device.

Source: torch/csrc, c10/cuda/CUDACachingAllocator.cpp.
"""

import bisect
from dataclasses import dataclass

_ROUND, _SMALL, _SMALL_SEGMENT = 512, 1 << 20, 2 << 20
_LARGE_SEGMENT, _LEAST_OWN, _OWN_ROUND = 20 << 20, 10 << 20, 2 << 20


class Replay:
    """The bytes in use after each event. A CPU counts what was asked for."""

    def __init__(self, device: str) -> None:
        self._pools = (_Pool(is_small=True), _Pool(is_small=False)) if device == "cuda" else None
        self._sizes: dict[int, int] = {}
        self._places: dict[int, tuple[_Pool, _Piece]] = {}
        self._total = self._most = 0

    @property
    def reserved(self) -> int:
        """Bytes taken from the device, the most at once; on a CPU the most in use."""
        return sum(pool.reserved for pool in self._pools) if self._pools else self._most

    def begin(self, number: int, nbytes: int) -> int:
        """A storage begins; returns all bytes in use."""
        if self._pools and nbytes:
            asked = max(-(-nbytes // _ROUND) * _ROUND, _ROUND)
            pool = self._pools[asked > _SMALL]
            piece = pool.take(asked)
            self._places[number], nbytes = (pool, piece), piece.size
        self._sizes[number] = nbytes
        self._total += nbytes
        self._most = max(self._most, self._total)
        return self._total

    def end(self, number: int) -> int:
        """A storage ends; returns all bytes in use."""
        self._total -= self._sizes.pop(number)
        if number in self._places:
            pool, piece = self._places.pop(number)
            pool.give_back(piece)
        return self._total


@dataclass(eq=False, slots=True)
class _Piece:
    """A part of a segment, between its neighbours."""

    size: int
    number: int
    before: "_Piece | None" = None
    after: "_Piece | None" = None
    is_free: bool = False


class _Pool:
    """Segments of one pool; the smallest free piece that is large enough is taken, and split."""

    def __init__(self, *, is_small: bool) -> None:
        self.is_small, self.reserved = is_small, 0
        self._free: list[tuple[int, int, _Piece]] = []
        self._count = 0

    def take(self, asked: int) -> _Piece:
        at = bisect.bisect_left(self._free, (asked, 0))
        if at < len(self._free):
            piece = self._free.pop(at)[2]
        else:
            piece = self._piece(self._segment(asked))
            self.reserved += piece.size
        piece.is_free = False
        rest = piece.size - asked
        if rest >= _ROUND if self.is_small else rest > _SMALL:
            left = self._piece(rest)
            left.before, left.after = piece, piece.after
            if piece.after is not None:
                piece.after.before = left
            piece.after, piece.size = left, asked
            self._add(left)
        return piece

    def give_back(self, piece: _Piece) -> None:
        for other in (piece.before, piece.after):
            if other is not None and other.is_free:
                self._free.pop(bisect.bisect_left(self._free, (other.size, other.number)))
                first, second = (other, piece) if other is piece.before else (piece, other)
                first.size += second.size
                first.after = second.after
                if second.after is not None:
                    second.after.before = first
                piece = first
        self._add(piece)

    def _segment(self, asked: int) -> int:
        if self.is_small:
            return _SMALL_SEGMENT
        return _LARGE_SEGMENT if asked < _LEAST_OWN else -(-asked // _OWN_ROUND) * _OWN_ROUND

    def _piece(self, size: int) -> _Piece:
        self._count += 1
        return _Piece(size, self._count)

    def _add(self, piece: _Piece) -> None:
        piece.is_free = True
        bisect.insort(self._free, (piece.size, piece.number, piece))

"""The row of tokens that a decoder computes for a micro-batch: equal prefixes of its samples once, and in the
last block the scored places alone.

The prefixes make a trie, whose segments lie in the row depth first: all that goes on from a segment stands
right behind it. So the tokens that a query sees are a few stretches of the row.

N tokens of the samples, n of the row
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Array = TypeVar("Array")
Moved = TypeVar("Moved")
Ints = npt.NDArray[np.int64]

# Tokens that a segment saves at least; for fewer, to merge their attention takes longer than to compute them.
_LEAST_SAVED = 32
ANY_LENGTH = 2**30  # tokens of a sample
# A row is laid out anew only where it computes at most this share of the tokens, or of the last block.
_MOST_COMPUTED = 0.95
_SHORTEST_RUN, _RUNS_OF_SAMPLE = 4, 4  # scored places in a row; else attention would be in crumbs


class Sharing(NamedTuple):
    """The prefixes that a model computes once.

    up_to    tokens of the longest sample of a micro-batch that shares them; None: the model takes no `Row`
    why_not  the reason why none are shared, or empty
    """

    up_to: int | None
    why_not: str = ""

    @property
    def told(self) -> str:
        """The words of the record on the prefixes."""
        if self.why_not:
            return f"not shared: {self.why_not}"
        is_limited = self.up_to is not None and self.up_to < ANY_LENGTH
        return f"shared, by samples of up to {self.up_to:,} tokens" if is_limited else "shared"


class Part(NamedTuple):
    """Attention of the queries `first` to `end` over the keys `low` to `high`; causal: these end together."""

    first: int
    end: int
    low: int
    high: int
    is_causal: bool


@dataclass(frozen=True, eq=False)
class Row(Generic[Array]):
    """The computed tokens of a micro-batch, as arrays of numpy or as tensors on a device.

    size     N
    longest  tokens of the longest sample
    share_up_to  tokens of the longest sample up to which equal prefixes are computed once
    places   (n,) int64, the computed ones of the N tokens; None: all of them, as they lie
    found    (N,) int64, the place in the row of each token; None: its own
    parts    of the attention, the first one of each query being causal; none where `places` is None
    scored   (m,) int64, the places of the row that the last block computes; None: all
    last     the parts of the attention of that block
    targets  (t,) int64, the place of each target among those; None: as they lie
    """

    size: int
    longest: int
    share_up_to: int
    places: Array | None = None
    found: Array | None = None
    parts: tuple[Part, ...] = ()
    scored: Array | None = None
    last: tuple[Part, ...] = ()
    targets: Array | None = None

    def map(self, change: Callable[[Array], Moved]) -> "Row[Moved]":
        """The same row with every array changed."""
        arrays = {name: getattr(self, name) for name in ("places", "found", "scored", "targets")}
        changed: Any = {name: change(array) for name, array in arrays.items() if array is not None}
        row: Any = replace(self, **changed)
        return row  # type: ignore[no-any-return]

    @property
    def computed(self) -> int:
        """Number n of tokens of the row."""
        places: Any = self.places
        return self.size if places is None else len(places)


def lay_row(
    tokens: Ints, lengths: Sequence[int], targets: Ints | None, share_up_to: int
) -> Row[npt.NDArray[Any]] | None:
    """The row that is computed for samples which lie end to end; None where that saves next to nothing.

    tokens (N,); lengths: of the samples; targets (t,): the scored ones of the tokens, None: all; share_up_to:
    as `Row` has it.
    """
    row = Row[npt.NDArray[Any]](size=len(tokens), longest=max(lengths), share_up_to=share_up_to)
    segments, at = _chain(lengths), np.arange(len(tokens)) if targets is None else targets
    if row.longest <= share_up_to and len(lengths) > 1:
        trie = _grow_trie(tokens, lengths)
        if len(trie.places) <= _MOST_COMPUTED * len(tokens):
            segments, at = trie.segments, trie.found[at]
            parts = tuple(_parts(segments, None))
            row = replace(row, places=trie.places, found=trie.found, parts=parts, targets=at)
    scored, of = np.unique(at, return_inverse=True)
    runs = 1 + np.count_nonzero(np.diff(scored) > 1)
    few_runs = runs <= max(_RUNS_OF_SAMPLE * len(lengths), len(scored) // _SHORTEST_RUN)
    if few_runs and 0 < len(scored) <= _MOST_COMPUTED * segments[-1].end:
        row = replace(row, scored=scored, last=tuple(_parts(segments, scored)))
        row = replace(row, targets=None if len(of) == len(scored) and (np.diff(of) > 0).all() else of)
    return None if row.places is None and row.scored is None else row


class _Segment(NamedTuple):
    """A stretch of the row, and the end of all that goes on from it."""

    start: int
    end: int
    last: int


@dataclass
class _Trie:
    places: Ints
    found: Ints
    segments: list[_Segment]


def _chain(lengths: Sequence[int]) -> list[_Segment]:
    """Samples without a common prefix."""
    return [_Segment(low, high, high) for low, high in pairwise(accumulate(lengths, initial=0))]


def _grow_trie(tokens: Ints, lengths: Sequence[int]) -> _Trie:
    """Share each prefix that saves enough tokens, from the root on."""
    firsts = [*accumulate(lengths, initial=0)]
    keys = tokens.astype(">i8").tobytes()  # whose order is that of the ids
    order = sorted(range(len(lengths)), key=lambda index: keys[8 * firsts[index] : 8 * firsts[index + 1]])
    sorted_rows = [tokens[firsts[index] : firsts[index + 1]] for index in order]
    common = np.array([0, *(_count_common(*pair) for pair in pairwise(sorted_rows))])
    found = np.empty(len(tokens), dtype=np.int64)
    places: list[Ints] = []
    segments: list[_Segment] = []
    size = 0

    def add(low: int, high: int, depth: int, end: int) -> None:
        """Append the tokens from depth to end of some samples, which are the same in all of them."""
        nonlocal size
        for index in order[low:high]:
            found[firsts[index] + depth : firsts[index] + end] = np.arange(size, size + end - depth)
        places.append(np.arange(firsts[order[low]] + depth, firsts[order[low]] + end))
        segments.append(_Segment(size, size + end - depth, size + end - depth))
        size += end - depth

    # Samples (low, high, tokens of them that lie there), or a segment behind which all has been laid.
    pending: list[tuple[int, int, int] | int] = [(0, len(order), 0)]
    while pending:
        task = pending.pop()
        if isinstance(task, int):
            segments[task] = segments[task]._replace(last=size)
            continue
        low, high, depth = task
        if high - low == 1:
            if depth < len(sorted_rows[low]):
                add(low, high, depth, len(sorted_rows[low]))
            continue
        shared = int(common[low + 1 : high].min())
        if (high - low - 1) * (shared - depth) >= _LEAST_SAVED:
            pending.append(len(segments))
            add(low, high, depth, shared)
            depth = shared
        cuts = [low, *(low + 1 + np.flatnonzero(common[low + 1 : high] == shared)).tolist(), high]
        pending += [(*pair, depth) for pair in reversed([*pairwise(cuts)])]
    return _Trie(np.concatenate(places), found, segments)


def _count_common(one: Ints, other: Ints) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    is_other = one[:length] != other[:length]
    return int(is_other.argmax()) if is_other.any() else length


def _parts(segments: Sequence[_Segment], scored: Ints | None) -> Iterator[Part]:
    """The attention of all places, or of the scored ones alone: first each query over its like, then over all
    before them.
    """
    if scored is None:
        yield from (Part(start, end, start, end, True) for start, end, _ in segments)
        yield from (Part(end, last, start, end, False) for start, end, last in segments if last > end)
        return
    dense = []
    for start, end, last in segments:
        first, behind, till = np.searchsorted(scored, (start, end, last)).tolist()
        cuts = first + 1 + np.flatnonzero(np.diff(scored[first:behind]) > 1)
        for low, high in pairwise([first, *cuts.tolist(), behind]):
            if low < high:
                yield Part(low, high, int(scored[low]), int(scored[high - 1]) + 1, True)
                dense.append(Part(low, high, start, int(scored[low]), False))
        dense.append(Part(behind, till, start, end, False))
    yield from (part for part in dense if part.first < part.end and part.low < part.high)

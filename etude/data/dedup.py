"""Near-duplicates: MinHash bands find the pairs that may be alike, and true Jaccard similarity decides.

Source: Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from etude.data.shingles import Hashes, jaccard
from etude.data.split import Flags, Ints

PERMUTATIONS = 128
_SEED = 1
_FOUND = 0.995  # at least this share of the pairs at the threshold becomes candidates


def choose_bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of a band: as many rows as still find pairs at the threshold, for few pairs below it.

    A pair of similarity s shares one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    rows = max(r for r in range(1, 33) if r == 1 or 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= _FOUND)
    return PERMUTATIONS // rows, rows


def hash_bands(shingles: Hashes, offsets: Ints, threshold: float) -> Hashes:
    """A number for each band of the MinHash signature of each text, (n, bands)."""
    from rensa import RMinHash

    bands, rows = choose_bands(threshold)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets.astype(np.uint64), PERMUTATIONS, _SEED)
    signatures = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, PERMUTATIONS)[:, : bands * rows]
    parts = signatures.reshape(-1, bands, rows)
    numbers = np.zeros(parts.shape[:2], dtype=np.uint64)
    for row in range(rows):
        numbers = (numbers ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
    return numbers


@dataclass(frozen=True)
class Buckets:
    """The documents that share a band with another (m, ascending), and in which buckets each lies.

    Those of document i are `buckets[starts[i] : starts[i + 1]]`.
    """

    documents: Ints
    starts: Ints
    buckets: Ints


def find_buckets(columns: Iterable[Hashes], usable: Flags) -> Buckets:
    """Buckets of at least two usable documents; `columns` (n,) are the bands, one after another."""
    at = np.flatnonzero(usable)
    documents, numbers, count = [], [], 0
    for column in columns:
        values = column[at]
        order = values.argsort(kind="stable")
        values = values[order]
        same = np.r_[False, values[1:] == values[:-1], False]
        shared = same[1:] | same[:-1]  # with the one before or the one behind
        number = np.cumsum(~same[:-1])[shared] + count
        documents.append(at[order[shared]])
        numbers.append(number)
        count = int(number.max(initial=count))
    members = np.concatenate(documents) if documents else np.zeros(0, dtype=np.int64)
    buckets = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64)
    order = members.argsort(kind="stable")
    members, buckets = members[order], buckets[order]
    each, starts = np.unique(members, return_index=True)
    return Buckets(each, np.r_[starts, len(members)].astype(np.int64), buckets)


@dataclass(frozen=True)
class Match:
    """Document `other` is like `document` in `similarity`."""

    document: int
    other: int
    similarity: float


def match_near(
    buckets: Buckets, shingles: Callable[[int], Hashes], held_out: Flags, threshold: float, *, keep_leaks: bool
) -> tuple[list[Match], list[Match]]:
    """Near-duplicates among the training documents, and training documents that are like a held-out one.

    A document is a duplicate if it is like one before it that is none itself, so each is like what is kept of it. A
    held-out document is never a duplicate. shingles(i): those of `buckets.documents[i]`, sorted, without repeats.
    keep_leaks: what is like a held-out document stays, so that later ones may be its duplicates.
    """
    order = np.lexsort((buckets.documents, ~held_out[buckets.documents]))
    kept: dict[int, list[int]] = {}
    duplicates, leaks = [], []
    for index in order.tolist():
        document = int(buckets.documents[index])
        mine = buckets.buckets[buckets.starts[index] : buckets.starts[index + 1]].tolist()
        if not held_out[document]:
            candidates = sorted({other for bucket in mine for other in kept.get(bucket, ())})
            alike = _alike(index, candidates, shingles, threshold)
            found = [Match(document, int(buckets.documents[other]), value) for other, value in alike]
            mirrored = [match for match in found if held_out[match.other]]
            earlier = next((match for match in found if not held_out[match.other]), None)
            leaks += mirrored
            if earlier is not None:
                duplicates.append(earlier)
            if earlier is not None or (mirrored and not keep_leaks):
                continue
        for bucket in mine:
            kept.setdefault(bucket, []).append(index)
    return duplicates, leaks


def _alike(
    index: int, candidates: Sequence[int], shingles: Callable[[int], Hashes], threshold: float
) -> list[tuple[int, float]]:
    if not candidates:
        return []
    mine = shingles(index)
    alike = []
    for other in candidates:
        theirs = shingles(other)
        # Sets so unequal in size cannot be alike.
        if min(len(mine), len(theirs)) >= threshold * max(len(mine), len(theirs)):
            value = jaccard(mine, theirs)
            if value >= threshold:
                alike.append((other, value))
    return alike

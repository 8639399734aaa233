"""Duplicates and leaks: equal texts by their digests, near ones by MinHash bands and true Jaccard similarity.

Source: Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import Flags, Ints
from etude.data.shingles import Hashes, jaccard
from etude.data.split import number_texts

PERMUTATIONS = 128
_SEED = 1
_FOUND = 0.995  # at least this share of the pairs at the threshold becomes candidates


def match_exact(
    digests: npt.NDArray[np.uint8], labels: Ints, uses: Ints, is_dropped: Flags
) -> tuple[Ints, Ints]:
    """Match equal texts: for each document the first training document before it, else -1 (n,); and leaks.

    The first has the same labels, too. Leaks are pairs of equal texts of different uses (m, 2). digests: of
    the texts (n, 16). uses (n,): 0 for training. A dropped document is equal to none.
    """
    count, number = len(uses), number_texts(digests)
    members = [np.flatnonzero((uses == use) & ~is_dropped) for use in range(int(uses.max(initial=0)) + 1)]
    first = np.full((len(members), count), count, dtype=np.int64)
    for row, mine in zip(first, members):
        np.minimum.at(row, number[mine], mine)
    same_as, train = np.full(count, -1, dtype=np.int64), members[0]
    labelled = number[train] * (labels.max(initial=0) + 1) + labels[train]
    _, begins, repeated = np.unique(labelled, return_index=True, return_inverse=True)
    original = train[begins[repeated]]
    same_as[train] = np.where(original < train, original, -1)
    leaks = [np.zeros((0, 2), dtype=np.int64)]
    for of, into in itertools.combinations(range(len(members)), 2):
        # Each document of one set with the first of the other that has its text, both ways round.
        for mine, other, order in ((members[of], first[into], 1), (members[into], first[of], -1)):
            hit = mine[other[number[mine]] < count]
            leaks.append(np.stack([hit, other[number[hit]]], axis=1)[:, ::order])
    return same_as, np.unique(np.concatenate(leaks), axis=0)


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
    starts = offsets.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, starts, PERMUTATIONS, _SEED)
    signatures = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, PERMUTATIONS)[:, : bands * rows]
    parts = signatures.reshape(-1, bands, rows)
    numbers = np.zeros(parts.shape[:2], dtype=np.uint64)
    for row in range(rows):
        numbers = (numbers ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
    return numbers


@dataclass(frozen=True)
class Buckets:
    """The documents that share a band with another (m, ascending), and the buckets of each.

    Those of `documents[i]` are `buckets[starts[i] : starts[i + 1]]`.
    """

    documents: Ints
    starts: Ints
    buckets: Ints

    def of(self, index: int) -> list[int]:
        """The buckets that document `documents[index]` lies in."""
        numbers: list[int] = self.buckets[self.starts[index] : self.starts[index + 1]].tolist()
        return numbers


def find_buckets(columns: Iterable[Hashes], usable: Flags) -> Buckets:
    """Buckets of at least two usable documents; `columns` (n,) are the bands, one after another."""
    at = np.flatnonzero(usable)
    documents, numbers, count = [], [], 0
    for column in columns:
        values = column[at]
        order = values.argsort(kind="stable")
        values = values[order]
        same = np.zeros(len(values) + 1, dtype=np.bool_)
        same[1:-1] = values[1:] == values[:-1]
        shared = same[1:] | same[:-1]  # with the one before or the one behind
        number = np.cumsum(~same[:-1])[shared] + count
        documents.append(at[order[shared]])
        numbers.append(number)
        count = int(number.max(initial=count))
    members, buckets = np.concatenate(documents), np.concatenate(numbers)
    order = members.argsort(kind="stable")
    ascending, starts = np.unique(members[order], return_index=True)
    return Buckets(ascending, np.r_[starts, len(members)].astype(np.int64), buckets[order])


@dataclass(frozen=True)
class Match:
    """Document `other` is like `document` in `similarity`."""

    document: int
    other: int
    similarity: float


def match_near(
    buckets: Buckets,
    shingles: Callable[[int], Hashes],
    held_out: Flags,
    labels: Ints,
    threshold: float,
    *,
    keep_leaks: bool,
) -> tuple[list[Match], list[tuple[int, int]]]:
    """Match near-duplicates among the training documents, and training documents with held-out ones (leaks).

    A document is a duplicate if it is like one of the same label before it that is none itself, so each is
    like what is kept of it. A held-out document is never a duplicate. keep_leaks: what is like a held-out
    document stays, so that later ones may be its duplicates, and there is one pair for each held-out
    document, with one that is no duplicate if possible; else there is one pair for each training document
    that leaks. shingles(i): those of `buckets.documents[i]`, sorted, without repeats.
    """
    documents = buckets.documents
    held, kept, again = _Table(buckets), _Table(buckets), _Table(buckets)

    def find(index: int, among: _Table, *, same_label: bool = False) -> Match | None:
        """The first that is alike."""
        document, mine = int(documents[index]), shingles(index)
        for at in among.sharing(index):
            other = int(documents[at])
            if same_label and labels[other] != labels[document]:
                continue
            theirs = shingles(at)
            smaller, larger = sorted((len(mine), len(theirs)))
            # Sets so unequal in size cannot be alike.
            if smaller >= threshold * larger and (value := jaccard(mine, theirs)) >= threshold:
                return Match(document, other, value)
        return None

    duplicates, leaks = [], []
    of_held, of_train = (np.flatnonzero(held_out[documents] == flag).tolist() for flag in (True, False))
    for index in of_held:
        held.add(index)
    for index in of_train:
        leak = None if keep_leaks else find(index, held)
        duplicate = find(index, kept, same_label=True)
        if duplicate is not None:
            duplicates.append(duplicate)
        if leak is not None:
            leaks.append((leak.document, leak.other))
        if leak is None and duplicate is None:
            kept.add(index)
        elif of_held:
            again.add(index)
    for index in of_held if keep_leaks else []:
        leak = find(index, kept) or find(index, again)
        if leak is not None:
            leaks.append((leak.other, leak.document))
    return duplicates, leaks


class _Table:
    """Documents by the buckets they lie in, added in ascending order."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._members: dict[int, list[int]] = {}

    def add(self, index: int) -> None:
        for bucket in self._buckets.of(index):
            self._members.setdefault(bucket, []).append(index)

    def sharing(self, index: int) -> Iterator[int]:
        """The documents that share a bucket with one, ascending, each once, found as they are asked for."""
        lists = [self._members[bucket] for bucket in self._buckets.of(index) if bucket in self._members]
        return (other for other, _ in itertools.groupby(heapq.merge(*lists)))

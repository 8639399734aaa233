"""The batches of any step, from its number alone: there is no position to save.

An epoch is a keyed permutation of the samples, computed where it is needed; a step is `global_batch_size`
places of it; a rank has a slice of the step, a micro-batch a piece of the slice. So no sample changes its
step with their number.
"""

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt

from etude.data.batch import NumpyBatch, collate, with_row
from etude.data.cache import require_whole
from etude.data.mixture import Mixture
from etude.data.samples.sample import Ints, Samples
from etude.data.shingles import spread

_ROUNDS = 8
_LOOKED_AT, _MOST_ORDERED = 2048, 2**20  # samples


@dataclass(frozen=True)
class StepBatches:
    """The samples of one rank in one step.

    ids      in the order of the micro-batches
    samples  how many all ranks have together
    """

    step: int
    epoch: int
    samples: int
    ids: Ints
    micro_batches: list[NumpyBatch]


def steps_per_epoch(n: int, global_batch_size: int) -> int:
    """Steps that show each of n samples once; the last one may hold fewer than `global_batch_size`."""
    return -(-n // global_batch_size)


def sample_ids(step: int, *, n: int, global_batch_size: int, seed: int) -> Ints:
    """The samples of a step (from 0) over all ranks, shape (at most global_batch_size,)."""
    epoch, place = divmod(step, steps_per_epoch(n, global_batch_size))
    low = place * global_batch_size
    return permute(np.arange(low, min(low + global_batch_size, n)), n=n, seed=seed, epoch=epoch)


def rank_part(ids: Ints, rank: int, ranks: int) -> Ints:
    """The contiguous part of a step's samples that a rank trains on; sizes differ by one at most."""
    part: Ints = np.array_split(ids, ranks)[rank]
    return part


def permute(places: Ints, *, n: int, seed: int, epoch: int) -> Ints:
    """The numbers at places of the epoch's permutation of 0 .. n-1, without the rest of it.

    A Feistel network on numbers of an even count of bits, applied again to what falls outside until it falls
    inside. Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002 (cycle walking).
    """
    half = np.uint64(max((n - 1).bit_length() + 1, 2) // 2)
    digest = hashlib.blake2b(f"etude {seed} {epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    keys = np.frombuffer(digest, dtype="<u8")
    values = places.astype(np.uint64)
    outside = np.ones(len(values), dtype=np.bool_)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half)
        outside = values >= n
    return values.astype(np.int64)


@dataclass(frozen=True)
class Loader:
    """The batches of steps of a training split, assembled ahead in one background thread.

    share_up_to: gives each batch the row that a decoder computes, as `Row` says; None: no batch has one.
    """

    split: Samples | Mixture
    _: KW_ONLY
    global_batch_size: int
    micro_batch_size: int
    seed: int
    attend_across_documents: bool
    rank: int = 0
    ranks: int = 1
    prefetch: int = 4
    share_up_to: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.split), self.global_batch_size)

    def load(self, step: int) -> StepBatches:
        """The batches of this rank in one step (from 0)."""
        ids = sample_ids(step, n=len(self.split), global_batch_size=self.global_batch_size, seed=self.seed)
        epoch = step // self.steps_per_epoch
        mine = rank_part(ids, self.rank, self.ranks)
        batches = [
            load_samples(
                self.split,
                group[low : low + self.micro_batch_size],
                self.attend_across_documents,
                epoch,
                share_up_to=self.share_up_to,
            )
            for group in _groups(self.split, mine)
            for low in range(0, len(group), self.micro_batch_size)
        ]
        return StepBatches(step, epoch, len(ids), mine, batches)

    def iterate(self, first_step: int, last_step: int) -> Generator[StepBatches]:
        """The steps from `first_step` up to, not including, `last_step`; closing it stops the thread.

        Raises: what assembling a step raised, when that step is due.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="etude-loader")
        try:
            steps = iter(range(first_step, last_step))
            ahead = deque(pool.submit(self.load, step) for _, step in zip(range(self.prefetch), steps))
            while ahead:
                batches = ahead.popleft().result()
                ahead.extend(pool.submit(self.load, step) for _, step in zip(range(1), steps))
                yield batches
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def iterate_once(
    split: Samples | Mixture,
    micro_batch_size: int,
    attend_across_documents: bool,
    rank: int = 0,
    ranks: int = 1,
    max_samples: int | None = None,
    share_up_to: int | None = None,
) -> Iterator[NumpyBatch]:
    """Every sample once and in order, or `max_samples` evenly spaced ones, dealt to the ranks in batches.

    share_up_to: as for `Loader`.
    """
    count = min(len(split), max_samples or len(split))
    ids = np.arange(count) * len(split) // count
    for group in _groups(split, ids):
        for low in range(rank * micro_batch_size, len(group), ranks * micro_batch_size):
            some = group[low : low + micro_batch_size]
            yield load_samples(split, some, attend_across_documents, share_up_to=share_up_to)


def longest_batch(split: Samples, micro_batch_size: int, attend_across_documents: bool) -> NumpyBatch:
    """The batch that takes most memory."""
    return load_samples(split, split.longest(micro_batch_size), attend_across_documents)


def longest_mixed(
    split: Samples, *, global_batch_size: int, micro_batch_size: int, seed: int, ranks: int, steps: int
) -> tuple[int, Ints] | None:
    """The step (from 0) and the samples of the longest micro-batch whose samples differ in length.

    Of the first 2,048 samples of the first epoch, and of the micro-batch with the last sample, which alone is
    shorter where documents lie end to end. None if there is none.
    """
    n, best, found = len(split), 0, None
    order = permute(np.arange(min(n, steps * global_batch_size, _MOST_ORDERED)), n=n, seed=seed, epoch=0)
    last = np.flatnonzero(order == n - 1) // global_batch_size
    first = range(-(-min(len(order), _LOOKED_AT) // global_batch_size))
    for step in sorted({*first, *last.tolist()}):
        ids = order[step * global_batch_size : (step + 1) * global_batch_size]
        for mine in np.array_split(ids, ranks):
            for low in range(0, len(mine), micro_batch_size):
                some = mine[low : low + micro_batch_size]
                lengths = [len(split.sample(int(index)).tokens) for index in some]
                if len(set(lengths)) > 1 and sum(lengths) > best:
                    best, found = sum(lengths), (step, some)
    return found


def _groups(split: Samples | Mixture, ids: Ints) -> list[Ints]:
    """The samples that may share a micro-batch: all, or those of one task."""
    return split.groups(ids) if isinstance(split, Mixture) else [ids]


def load_samples(
    split: Samples | Mixture, ids: Ints, attend_across_documents: bool, epoch: int = 0,
    share_up_to: int | None = None,
) -> NumpyBatch:  # fmt: skip
    """The batch of some samples; share_up_to: as for `Loader`."""
    for part in split.parts.values() if isinstance(split, Mixture) else (split,):
        require_whole(part.spans.tokens)
    batch = collate([split.sample(int(index), epoch) for index in ids], attend_across_documents)
    return batch if share_up_to is None else with_row(batch, share_up_to)


def _feistel(
    values: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64], half: np.uint64
) -> npt.NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (spread(right ^ key) & mask)
    return (left << half) | right

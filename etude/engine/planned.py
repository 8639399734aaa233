"""The samples that a step is to have, worked out anew and held against those that it read."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from etude.data.loader import StepBatches, permute, rank_part, steps_per_epoch
from etude.data.mixture import Mixture
from etude.data.samples.sample import Ints, Samples
from etude.text import plural, verb

_MOST_IDS = 256  # that are compared at a time; more take turns
_BLOCK = 2048  # places that are permuted at once, in little more time than those of a step alone


@dataclass(frozen=True)
class Planned:
    """The samples of a rank in a step (from 0) by seed and step; `turn` counts the comparisons."""

    split: Samples | Mixture
    global_batch_size: int
    seed: int
    rank: int
    ranks: int
    step: int
    turn: int

    @staticmethod
    def find_missing(read: StepBatches) -> str:
        """Samples without a row; empty where each has one, or several texts of its own."""
        rows = sum(len(each.lengths or each.tokens) for each in read.micro_batches)
        return (
            f"read {plural(rows, 'row')} of {plural(len(read.ids), 'sample')}" if rows < len(read.ids) else ""
        )

    def find_other(self, read: StepBatches) -> str:
        """A sample that is another, or tokens that are missing; empty where all are those of the plan."""
        count, size = len(self.split), self.global_batch_size
        epoch, place = divmod(self.step, steps_per_epoch(count, size))
        places = np.arange(place * size, min((place + 1) * size, count))
        mine = rank_part(places, self.rank, self.ranks)
        part = slice(0, None)
        if len(mine) > _MOST_IDS:
            low = self.turn % -(-len(mine) // _MOST_IDS) * _MOST_IDS
            part = slice(low, low + _MOST_IDS)
        due = self._permuted(mine[part], epoch)
        if len(read.ids) != len(mine):
            return f"read {plural(len(read.ids), 'sample')}, the plan has {len(mine):,}"
        if len(other := np.flatnonzero(read.ids[part] != due)):
            first = int(other[0])
            return (
                f"read sample {read.ids[part][first]:,} at place {part.start + first + 1:,}, where the plan "
                f"has {due[first]:,}; {len(other):,} of {plural(len(due), 'sample')} "
                f"{verb(len(other), 'are')} others"
            )
        if len(due) < len(mine):
            return ""
        tokens = sum(len(self.split.sample(int(each), epoch).tokens) for each in due)
        given = sum(batch.tokens.size for batch in read.micro_batches)
        return f"read {given:,} tokens of samples that have {tokens:,}" if given != tokens else ""

    def _permuted(self, places: Ints, epoch: int) -> Ints:
        """The samples at places that follow each other."""
        if not len(places):
            return places
        blocks = range(int(places[0]) // _BLOCK, int(places[-1]) // _BLOCK + 1)
        found = [_block(number, len(self.split), self.seed, epoch) for number in blocks]
        return np.concatenate(found)[places - blocks.start * _BLOCK]


@lru_cache(maxsize=4)
def _block(number: int, count: int, seed: int, epoch: int) -> Ints:
    places = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, count))
    return permute(places, n=count, seed=seed, epoch=epoch)

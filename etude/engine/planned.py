"""The samples that a step is to have, worked out anew and held against those that it read."""

from dataclasses import dataclass

import numpy as np

from etude.data.loader import StepBatches, permute, rank_part, steps_per_epoch
from etude.data.mixture import Mixture
from etude.data.samples.sample import Samples
from etude.text import plural, verb

_MOST_IDS = 256  # that are compared at a time; more take turns


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
        due = permute(mine[part], n=count, seed=self.seed, epoch=epoch)
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

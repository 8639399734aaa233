"""The samples of several tasks as one training set, with stated shares, by arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.data.samples.sample import Ints, Sample, Samples


@dataclass(frozen=True)
class Mixture:
    """Places 0, 1 ... of an epoch, the first `counts[0]` of which are of the first task, and so on.

    The places of a task go on through its samples from epoch to epoch: with few places it comes to all of
    them, with more places than samples it repeats them evenly.
    """

    parts: Mapping[str, Samples]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a sample."""
        return self._mean(lambda part: part.tokens_per_sample)

    @property
    def targets(self) -> int:
        """Targets of an epoch, about."""
        return round(self._mean(lambda part: part.spans.targets / len(part)) * len(self))

    @property
    def scored(self) -> float:
        """Targets of an epoch, about; of a masked task those that are hidden."""
        return self._mean(lambda part: part.spans.scored / len(part)) * len(self)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """Sample `index` of `len(self)` in an epoch, which knows its task."""
        assert 0 <= index < len(self), index
        borders = np.cumsum(self.counts)
        number = int(borders.searchsorted(index, side="right"))
        name, part = list(self.parts.items())[number]
        place = epoch * self.counts[number] + index - (int(borders[number]) - self.counts[number])
        return replace(part.sample(place % len(part), place // len(part)), task=name)

    def groups(self, ids: Ints) -> list[Ints]:
        """The samples of a step, by task, each in the order given: one micro-batch is of one task."""
        number = np.cumsum(self.counts).searchsorted(ids, side="right")
        return [ids[number == each] for each in range(len(self.counts)) if (number == each).any()]

    def _mean(self, value: Any) -> float:
        total: float = sum(count * value(part) for count, part in zip(self.counts, self.parts.values()))
        return total / max(len(self), 1)


def mix(parts: Mapping[str, Samples], ratios: Mapping[str, float]) -> Mixture:
    """A mixture whose epoch ends when the first of its parts has shown all samples."""
    passes = min(len(part) / ratios[name] for name, part in parts.items())
    return Mixture(parts, tuple(max(round(passes * ratios[name]), 1) for name in parts))

"""Losses that rest where a model knows how often tokens occur, and nothing of their order."""

import math
from itertools import pairwise
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import Blocks

_LEAST_POINTS, _SHARE = 20, 0.05  # of a block


class OnlyFrequencies:
    """A training loss that does not go below the entropy of its targets, and no longer falls.

    Rule: the means of three blocks in a row, of a twentieth of the steps and at least 20 points each, are
    above 0.97 of the entropy of the targets by their frequencies, and none falls by 1 % of the one before;
    the learning rate is above a tenth of its peak throughout.
    Source: arithmetic: a model that reads what stands before a target goes below it.
    Delay: three blocks.
    """

    kind: ClassVar[str] = "only_frequencies"

    def __init__(self, facts: Facts) -> None:
        self._level = facts.frequencies_loss
        self._peak = facts.peak_learning_rate or 0.0
        self._steps = facts.steps or 0
        self._blocks: Blocks | None = None
        self._last_step: int | None = None
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss, rate = point.loss, point.learning_rate
        if self._level is None or loss is None or point.skipped or not math.isfinite(loss):
            return None
        if self._blocks is None:
            self._begin(point.step)
            return None
        self._peak = max(self._peak, rate or 0.0)
        if rate is not None and rate < 0.1 * self._peak:
            self._blocks.clear()
            return None
        if not self._blocks.add(point.step, loss) or not self._blocks.is_full:
            return None
        return self._judge(point.step, self._level, self._blocks)

    def untold(self) -> str | None:
        return None

    def _begin(self, step: int) -> None:
        """Choose the length of blocks, once two points tell how far they are apart."""
        if self._last_step is not None:
            points = _SHARE * self._steps / max(step - self._last_step, 1)
            self._blocks = Blocks(max(math.ceil(points), _LEAST_POINTS), 3)
        self._last_step = step

    def _judge(self, step: int, level: float, blocks: Blocks) -> Finding | None:
        means = list(blocks.means)
        rests = all(now > 0.99 * before for before, now in pairwise(means))
        is_above = min(means) > 0.97 * level
        self._is_reported = self._is_reported and is_above
        if self._is_reported or not (rests and is_above):
            return None
        self._is_reported = True
        first = max(round(1.5 * blocks.places[0] - 0.5 * blocks.places[1]), 1)
        return Finding(
            step,
            "nothing is learnt but how often tokens occur",
            f"the training loss rests at {means[-1]:.4g} since step {first:,}; the frequencies of the "
            f"targets alone give {level:.4g}, and what stands before a token should give less",
            "lower optim.learning_rate to a tenth; if that does not help, see by etude data show that "
            "targets follow from what stands before them",
            window=[first, step],
            causes=[
                "a learning rate that is too high: each update undoes what the last one learnt",
                "targets that do not follow from what stands before them",
                "a model too small, or without a way to look back",
            ],
            changes={"optim.learning_rate": self._peak / 10} if self._peak else {},
            not_tested=["a run with a lower rate", "the rows"],
            kind=self.kind,
            confidence=0.7,
        )

"""Losses that rest where a model knows how often tokens occur, and nothing of their order."""

import math
from itertools import pairwise
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import Blocks, theil_sen

_LEAST_POINTS, _SHARE = 20, 0.05  # of a block
_PARTS = 10  # of a block, as places of a trend
_ERRORS = 2.0  # standard errors of a fall that is no chance


class OnlyFrequencies:
    """A training loss that does not go below the entropy of its targets, and no longer falls.

    Rule: the means of three blocks in a row, of a twentieth of the steps and at least 20 points each, are
    above 0.97 of the entropy of the targets by their frequencies, none falls by 1 % of the one before, and
    the trend over them does not fall by more than two standard errors; nor does validation, from the last
    evaluation before these blocks to the first after them, if there are any. The learning rate is above a
    tenth of its peak throughout.
    Source: arithmetic: a model that reads what stands before a target goes below it. Before it does its loss
    falls slowly for a while, which is less than 1 % a block, and no rest.
    Delay: three blocks, and the next evaluation.
    """

    kind: ClassVar[str] = "only_frequencies"

    def __init__(self, facts: Facts) -> None:
        self._level = facts.frequencies_loss
        self._peak = facts.peak_learning_rate or 0.0
        self._steps = facts.steps or 0
        self._blocks: Blocks | None = None
        self._wait = 0  # parts until the next judgement
        self._scored: list[tuple[int, float, float]] = []  # evaluations from the last before the blocks on
        self._rest: tuple[float, int] | None = None  # mean and first step of blocks to be confirmed
        self._last_step: int | None = None
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        if self._level is None:
            return None
        loss, rate = point.loss, point.learning_rate
        if loss is not None and not point.skipped and math.isfinite(loss):
            self._take(point.step, loss, rate)
        if point.eval_loss is not None and math.isfinite(point.eval_loss):
            self._scored.append((point.step, point.eval_loss, point.eval_error or 0.0))
        return self._confirm(point, self._level) if self._rest else None

    def untold(self) -> str | None:
        return None

    def _take(self, step: int, loss: float, rate: float | None) -> None:
        """Take in a loss of training, and note blocks that rest."""
        if self._blocks is None:
            self._begin(step)
            return
        self._peak = max(self._peak, rate or 0.0)
        if rate is not None and rate < 0.1 * self._peak:
            self._blocks.clear()
            self._scored, self._rest = self._scored[-1:], None
        elif self._blocks.add(step, loss) and self._blocks.is_full:
            self._wait = (self._wait - 1) % _PARTS
            if not self._wait:
                self._judge(self._blocks)

    def _begin(self, step: int) -> None:
        """Choose the length of blocks, once two points tell how far they are apart."""
        if self._last_step is not None:
            points = _SHARE * self._steps / max(step - self._last_step, 1)
            length = max(math.ceil(points), _LEAST_POINTS)
            self._blocks = Blocks(math.ceil(length / _PARTS), 3 * _PARTS)
        self._last_step = step

    def _judge(self, blocks: Blocks) -> None:
        assert self._level is not None
        parts = list(blocks.means)
        means = [sum(parts[at : at + _PARTS]) / _PARTS for at in range(0, len(parts), _PARTS)]
        is_above = min(means) > 0.97 * self._level
        self._is_reported = self._is_reported and is_above
        first = max(round(1.5 * blocks.places[0] - 0.5 * blocks.places[1]), 1)
        before = [at for at, each in enumerate(self._scored) if each[0] < first]
        self._scored = self._scored[max(before, default=0) :]
        rests = all(now > 0.99 * then for then, now in pairwise(means))
        if not (rests and is_above) or theil_sen(blocks.places, parts, _ERRORS)[2] < 0:
            self._rest = None
        elif not self._is_reported:
            self._rest = means[-1], first

    def _confirm(self, point: Point, level: float) -> Finding | None:
        """The finding of blocks that rest, once the next evaluation rests too."""
        assert self._rest is not None
        if self._scored and point.eval_loss is None:
            return None
        (mean, first), self._rest = self._rest, None
        if self._scored:
            (_, before, error), (_, now, other) = self._scored[0], self._scored[-1]
            if before - now > _ERRORS * math.hypot(error, other) > 0:
                return None
        self._is_reported = True
        return Finding(
            point.step,
            "nothing is learnt but how often tokens occur",
            f"the training loss rests at {mean:.4g} since step {first:,}; the frequencies of the "
            f"targets alone give {level:.4g}, and what stands before a token should give less",
            "lower optim.learning_rate to a tenth; if that does not help, see by etude data show that "
            "targets follow from what stands before them",
            window=[first, point.step],
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

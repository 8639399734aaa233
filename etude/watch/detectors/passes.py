"""Rows that are known by heart: losses that step down where epochs begin, repeated rows that score better."""

import math
from collections import deque
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import Window


class EpochStep:
    """A training loss that steps down where a new epoch begins, since its rows are known from the one before.

    Rule: the median of the last points of an epoch (a quarter of them, 5 to 25) less that of as many of the
    next is over 4 times the fall between that quarter and the one before it, over 5 of its standard errors,
    and over 5 % of the level. Reported once, as a remark: most runs of several epochs have it, and validation
    tells if it harms.
    Delay: up to 25 points. False alarms: none on 100 synthetic curves of two epochs without a step.
    """

    kind: ClassVar[str] = "epoch_step"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._recent: deque[float] = deque(maxlen=50)
        self._epoch, self._in_epoch = 0, 0
        self._edge = 0
        self._before: tuple[float, float, float, int] | None = None  # level, earlier fall, error, width
        self._after: list[float] = []
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss = point.loss
        epoch = self._epoch_of(point)
        if loss is None or epoch is None or self._is_reported or point.skipped or not math.isfinite(loss):
            return None
        if epoch > self._epoch:
            self._begin(point.step)
            self._epoch, self._in_epoch = epoch, 0
        self._in_epoch += 1
        self._recent.append(loss)
        if self._before is None:
            return None
        self._after.append(loss)
        return self._judge(point.step) if len(self._after) == self._before[3] else None

    def untold(self) -> str | None:
        return None

    def _epoch_of(self, point: Point) -> int | None:
        """Full epochs before this step; the last step of an epoch belongs to it."""
        if point.epoch is not None:
            return max(math.ceil(point.epoch - 1e-6) - 1, 0)
        return (point.step - 1) // self._facts.steps_per_epoch if self._facts.steps_per_epoch else None

    def _begin(self, step: int) -> None:
        self._before, self._after, self._edge = None, [], step
        width = min(self._in_epoch // 4, 25)
        if width < 5:
            return
        values = list(self._recent)
        near, far = Window(width), Window(width)
        for value in values[-width:]:
            near.add(value)
        for value in values[-2 * width : -width]:
            far.add(value)
        error = 1.2533 * math.hypot(near.deviation(), far.deviation()) / math.sqrt(width)
        self._before = near.median(), max(far.median() - near.median(), 0.0), error, width

    def _judge(self, step: int) -> Finding | None:
        assert self._before is not None
        level, fall, error, width = self._before
        self._before = None
        after = Window(width)
        for value in self._after:
            after.add(value)
        drop = level - after.median()
        if drop <= max(4 * fall, 5 * error, 0.05 * abs(level)):
            return None
        self._is_reported = True
        return Finding(
            step,
            "the loss steps down where rows repeat",
            f"loss {after.median():.4g} over the {width} points after step {self._edge:,}, where epoch "
            f"{self._epoch + 1} begins, {level:.4g} over those before; it fell by {fall:.2g} over as "
            f"many points "
            f"within the epoch",
            "judge by validation loss from here on: training loss now tells what is remembered; "
            "fewer train.epochs "
            "if validation rises",
            severity="info",
            window=[self._edge - width, step],
            causes=["rows that are remembered from the epoch before"],
            not_tested=["whether unseen rows got better as well"],
            kind=self.kind,
            confidence=0.8,
        )


class Duplicates:
    """Rows that the model knows by heart, as they came before within the first epoch.

    Rule: over at least 30 rows that had come before, the mean loss is below half of that of rows that are
    new.
    Source: ratio as in the benchmark. Delay: 30 such rows. False alarms: none on 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "duplicates"

    def __init__(self, facts: Facts) -> None:
        self._rows = 0
        self._seen = self._new = self._points = 0.0
        self._first_step = 0
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        rows, seen, new = point.repeated_rows, point.repeated_loss, point.new_loss
        if not rows or seen is None or new is None or self._is_reported:
            return None
        if not (math.isfinite(seen) and math.isfinite(new)) or (point.epoch or 0.0) > 1:
            return None
        self._first_step = self._first_step or point.step
        self._rows += rows
        self._seen += rows * seen
        self._new += rows * new
        seen, new = self._seen / self._rows, self._new / self._rows
        if self._rows < 30 or seen >= 0.5 * new:
            return None
        self._is_reported = True
        return Finding(
            point.step,
            "rows that repeat are known by heart",
            f"loss {seen:.4g} over {self._rows:,} rows that had come before, {new:.4g} over new ones, "
            f"up to step "
            f"{point.step:,} of the first epoch",
            'set data.deduplicate = "near", and look at its report for the share that goes',
            window=[self._first_step, point.step],
            causes=["duplicates in the training rows"],
            changes={"data.deduplicate": "near"},
            not_tested=["whether validation has copies of them too"],
            decided_by="loss of rows that came before against that of new ones",
            kind=self.kind,
            confidence=0.9,
        )

    def untold(self) -> str | None:
        return None

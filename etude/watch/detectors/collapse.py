"""Losses that fall in the first pass below what rows that nobody has seen allow."""

import math
import statistics
from collections import deque
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point

COPIED = "targets that are not shifted: the model copies what it reads"
REPEATED = "rows that repeat within a pass"
ANSWER = "the answer stands in the prompt"
FUTURE = "later tokens are visible: the causal mask is broken"
PADDING = "padding or prompts are scored, which is easily learnt"
SCALE = "a loss divided by more than its targets"
EASY = "data that is easy, or known to the model already: no fault"
OTHER_ROWS = "validation rows of another kind than those of training"
_TESTS = [
    "loss of copied against next tokens",
    "earlier logits after a later token changes",
    "loss of padding and prompts apart from the rest",
    "repeated rows, by hash",
    "loss of rows held out",
]
_ALIKE = 0.1
_TEXTS = ("causal", "masked", "seq2seq")


class Collapse:
    """A training loss that falls, before any row repeats, below what unseen rows allow.

    Rule: within the first epoch the level, the median of the last 5 points (3 that span 10 steps each), is
    below half of the validation loss at an evaluation (two in a row without standard errors), and by 0.1 and
    3 standard errors; or, if the first loss was above 1, below a tenth of it and 0.25 where texts are trained
    on, below a fiftieth and 0.05 where the kind of training is unknown. Classification is judged by its
    validation loss alone: labels can be that easy. A validation loss as low, of an unknown kind of training,
    makes it a remark: the data may be easy, or validation has the same fault. If the validation loss is as
    many times that of training as at the evaluation before, within a tenth, while it changed by more, the
    scale of the loss is the first cause.
    Source: experiments with one fault each (loss 0.004 to 0.2 after 225 steps; 2.3 without a fault).
    Delay: 3 points below the bound. False alarms: none on 27 real and 2,000 made healthy curves; data that is
    merely easy is reported as well, and only probes tell it apart.
    """

    kind: ClassVar[str] = "first_pass_collapse"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._losses: deque[float] = deque(maxlen=5)
        self._first: tuple[int, float] | None = None
        self._last_step = self._stride = 0
        self._epoch: float | None = None
        self._is_reported = self._is_over = False
        share, most = (0.1, 0.25) if facts.objective in _TEXTS else (0.02, 0.05)
        self._share, self._most = share, most
        self._below = 0  # evaluations in a row whose loss is far above that of training
        self._unseen: float | None = None
        self._times: deque[tuple[float, float]] = deque(
            maxlen=2
        )  # the last of them, and times that of training

    def observe(self, point: Point) -> Finding | None:
        if self._is_over or self._is_reported:
            return None
        self._epoch = self._epoch_of(point)
        if self._epoch is None or self._epoch > 1:
            self._is_over = self._epoch is not None
            return None
        loss = point.loss
        if loss is not None and math.isfinite(loss) and not point.skipped:
            self._stride, self._last_step = point.step - self._last_step, point.step
            self._first = self._first or (point.step, loss)
            self._losses.append(loss)
            if loss < self._floor() and self._level() < self._floor():
                self._is_reported = True
                return self._finding(point.step, self._level(), None)
        if point.eval_loss is not None:
            return self._against(point, point.eval_loss)
        return None

    def untold(self) -> str | None:
        if self._epoch is None and not self._is_over:
            return "no epochs, so that a collapse in the first pass looks like rows learnt by heart"
        return None

    def _epoch_of(self, point: Point) -> float | None:
        if point.epoch is not None or not self._facts.steps_per_epoch:
            return point.epoch
        return point.step / self._facts.steps_per_epoch

    def _level(self) -> float:
        """Median of the last points, 5 or 3 that are means of 10 steps; infinite if there are fewer."""
        width = 3 if self._stride >= 10 else 5
        last = list(self._losses)[-width:]
        return statistics.median(last) if len(last) == width else math.inf

    def _floor(self) -> float:
        """The loss that unseen rows do not allow; none where it began low or where labels are predicted."""
        if self._first is None or self._first[1] <= 1 or self._facts.objective not in (None, *_TEXTS):
            return -math.inf
        return min(self._most, self._share * self._first[1])

    def _against(self, point: Point, unseen: float) -> Finding | None:
        self._unseen = unseen
        level, error = self._level(), point.eval_error
        is_below = level < 0.5 * unseen and unseen - level > max(0.1, 3 * (error or 0.0))
        self._below = self._below + 1 if is_below else 0
        if min(level, unseen) > 0 and max(level, unseen) < math.inf:
            self._times.append((unseen, unseen / level))
        if self._below < (2 if error is None else 1):
            return None
        self._is_reported = True
        return self._finding(point.step, level, unseen)

    def _is_scaled(self) -> bool:
        """True if the last two validation losses, of another height, are as many times that of training."""
        if len(self._times) < 2:
            return False
        (before, times), (now, times_now) = self._times
        return abs(math.log(times_now / times)) < _ALIKE < abs(math.log(now / before))

    def _finding(self, step: int, level: float, unseen: float | None) -> Finding:
        assert self._first is not None and self._epoch is not None
        at, first = self._first
        is_as_low = (
            self._facts.objective is None and self._unseen is not None and self._unseen < 2 * max(level, 0.05)
        )
        if unseen is not None:
            causes = [REPEATED, PADDING, OTHER_ROWS, SCALE]
            beside = f"; validation loss {unseen:.4g} at the same step"
            if self._is_scaled():
                causes = [SCALE, PADDING, REPEATED, OTHER_ROWS]
                beside += f", {self._times[-1][1]:.3g} times that, as at the evaluation before"
        else:
            causes = [COPIED, REPEATED, ANSWER, FUTURE, PADDING, SCALE, EASY]
            if level > 0.02:  # padding that is scored keeps the share of the loss that is left
                causes = [PADDING, COPIED, REPEATED, ANSWER, FUTURE, SCALE, EASY]
            beside = ""
            if self._unseen is not None:
                beside += f"; the latest validation loss was {self._unseen:.3g}"
        return Finding(
            step,
            "the loss fell below what unseen rows allow, before any row was seen twice",
            f"loss {first:.4g} at step {at:,}, {level:.3g} at step {step:,}, after {self._epoch:.0%} of the "
            f"first epoch{beside}",
            "this is no overfitting: see that targets are shifted once, that padding and prompts are "
            "not scored, "
            "that rows differ, and that no later token is visible, before training goes on",
            severity="info" if is_as_low else "warning",
            window=[at, step],
            causes=causes,
            not_tested=list(_TESTS),
            kind=self.kind,
            confidence=0.4 if unseen is None else 0.6,
        )

"""Learning rates, gradients and scales that keep a model from learning."""

import statistics
from collections import deque
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import Window


class DeadRate:
    """A learning rate, or updates, too small to change the weights while steps are left.

    Rule: (a) the rate is 0, or below a thousandth of its peak after it was there, for 3 points that span 20
    steps, with over 5 % of the steps left (where their number is unknown: while it was 0 from the start on);
    (b) the median of update norm to weight norm over 50 steps is below 1e-6, where 1e-3 is usual, and the
    rate is not on its way up.
    Source: (b) Karpathy's rule of 1e-3; Amazon SageMaker Debugger alarms at 1e-8.
    Delay: 20 steps of (a), 50 of (b). False alarms: none on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "dead_learning_rate"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._ratios = Window(50)
        self._peak = self._last = 0.0
        self._since: int | None = None
        self._points = 0
        self._has_rate = self._is_reported = False
        self._is_rising = self._is_small = False

    def observe(self, point: Point) -> Finding | None:
        rate = point.learning_rate
        if rate is not None:
            self._has_rate = True
            found = self._watch_rate(point.step, rate)
            if found:
                return found
        if point.update_ratio is not None and not point.skipped:
            return self._watch_updates(point.step, point.update_ratio)
        return None

    def untold(self) -> str | None:
        return None if self._has_rate else "no learning rate"

    def _watch_rate(self, step: int, rate: float) -> Finding | None:
        self._is_rising, self._last = rate > self._last, rate
        self._peak = max(self._peak, rate)
        if rate > 0.001 * self._peak:
            self._since, self._points, self._is_reported = None, 0, False
            return None
        self._since = step if self._since is None else self._since
        self._points += 1
        if self._is_reported or self._points < 3 or step - self._since < 20 or not self._has_steps_left(step):
            return None
        self._is_reported = True
        began = "from the start on" if not self._peak else f"after a peak of {self._peak:.3g}"
        steps = self._facts.steps
        left = f"; {steps - step:,} steps are left" if steps else ""
        return Finding(
            step,
            "the learning rate is zero while training goes on",
            f"learning rate {rate:.3g} since step {self._since:,}, {began}{left}",
            "let the schedule span all steps of the run, and its warm-up less than them",
            window=[self._since, step],
            causes=["a schedule over fewer steps than the run has", "a warm-up that never ends"],
            changes={"schedule.min_lr_ratio": 0.1} if self._peak else {},
            not_tested=["whether the rate was meant to be zero"],
            kind=self.kind,
            confidence=0.8,
        )

    def _has_steps_left(self, step: int) -> bool:
        return step < 0.95 * self._facts.steps if self._facts.steps else not self._peak

    def _watch_updates(self, step: int, ratio: float) -> Finding | None:
        self._ratios.add(ratio)
        if not self._ratios.is_full or self._ratios.median() >= 1e-6:
            self._is_small = False
            return None
        was_small, self._is_small = self._is_small, True
        if was_small or self._is_rising or self._since is not None:
            return None
        return Finding(
            step,
            "updates are too small to change the weights",
            f"updates of {self._ratios.median():.2g} of the weights' norm over the last 50 points, "
            f"where about "
            f"1e-3 is usual",
            "raise optim.learning_rate, tenfold to begin with, and see that gradients reach the weights",
            window=[max(step - 50, 1), step],
            causes=["a learning rate that is far too low", "gradients that do not reach the weights"],
            changes={"optim.learning_rate": float(f"{self._peak * 10:.2g}")} if self._peak else {},
            not_tested=["which weights have gradients"],
            kind=self.kind,
            confidence=0.7,
            source="about 1e-3 in healthy runs (Karpathy, A recipe for training neural networks)",
        )


class ClipSaturation:
    """Gradients of which nearly every one is clipped, by far.

    Rule: over 200 steps and 20 points, over 90 % of the norms are above the limit, and their median is 3
    times the limit: a remark, as healthy runs are clipped at each step too; 10 times is a warning.
    Source: norms of 51 to 82 at a limit of 1 in a run of LoRA that stood still; 1.1 to 20 in healthy ones.
    Delay: 200 steps. False alarms: no warning on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "clip_saturation"

    def __init__(self, facts: Facts) -> None:
        self._limit = facts.max_grad_norm
        self._norms: deque[tuple[int, bool]] = deque()
        self._last: deque[float] = deque(maxlen=200)
        self._clipped = self._large = 0  # norms above the limit, and above three times it of the last 200
        self._severity = ""

    def observe(self, point: Point) -> Finding | None:
        norm, limit = point.grad_norm, self._limit
        if norm is None or not limit or point.skipped or not norm < float("inf"):
            return None
        self._norms.append((point.step, norm > limit))
        if len(self._last) == 200:
            self._large -= self._last[0] >= 3 * limit
        self._last.append(norm)
        self._large += norm >= 3 * limit
        self._clipped += norm > limit
        while len(self._norms) > 200 or (len(self._norms) > 20 and point.step - self._norms[0][0] > 200):
            self._clipped -= self._norms.popleft()[1]
        count, first = len(self._norms), self._norms[0][0]
        if count < 20 or point.step - first < 199:
            return None
        share = self._clipped / count
        is_large = share > 0.9 and 2 * self._large >= len(self._last)  # else the median is surely below
        median = statistics.median(self._last) if is_large else 0.0
        if median < 3 * limit:
            self._severity = ""
            return None
        severity = "warning" if median > 10 * limit else "info"
        if self._severity in (severity, "warning"):
            return None
        self._severity = severity
        return Finding(
            point.step,
            "nearly all gradients are clipped",
            f"{share:.0%} of the gradient norms since step {first:,} are above the limit of "
            f"{limit:g}; their median "
            f"is {median:.3g}",
            "see that the loss is divided by its targets; else raise train.max_grad_norm to the "
            "usual norm, or lower "
            "optim.learning_rate",
            severity=severity,
            window=[first, point.step],
            causes=[
                "a loss that is summed and not divided by its targets",
                "a limit far below the usual norm",
            ],
            changes={"train.max_grad_norm": float(f"{median:.2g}")} if severity == "warning" else {},
            not_tested=["the loss computed again from its targets"],
            kind=self.kind,
            confidence=0.6,
        )

    def untold(self) -> str | None:
        return None if self._limit else "the norm that gradients are clipped to is not known"


class ScaleCollapse:
    """A loss scale of fp16 that falls again and again, or so far that small gradients vanish.

    Rule: from 50 steps on, when the search for the first scale is over, it is halved 3 times within 50 steps,
    or is below 128.
    Source: torch.amp.GradScaler begins at 2^16 and doubles after 2,000 steps without overflow.
    Delay: 50 steps. False alarms: none on 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "scale_collapse"

    def __init__(self, facts: Facts) -> None:
        self._halvings: deque[int] = deque()
        self._last = self._best = 0.0
        self._first_step: int | None = None
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        scale = point.loss_scale
        if scale is None or scale <= 0:
            return None
        self._first_step = point.step if self._first_step is None else self._first_step
        while self._last > 1.5 * scale:
            self._halvings.append(point.step)
            self._last /= 2
        self._last, self._best = scale, max(self._best, scale)
        while self._halvings and point.step - self._halvings[0] > 50:
            self._halvings.popleft()
        recent = sum(step > self._first_step + 50 for step in self._halvings)
        if point.step <= self._first_step + 50 or (recent < 3 and scale >= 128):
            self._is_reported = self._is_reported and recent > 0
            return None
        if self._is_reported:
            return None
        self._is_reported = True
        return Finding(
            point.step,
            "the loss scale of fp16 collapses",
            f"loss scale {scale:g} at step {point.step:,} after {self._best:g}; halved {recent} times "
            f"in 50 steps",
            "train in bf16 or fp32: activations or gradients leave the range of fp16",
            window=[max(point.step - 50, self._first_step), point.step],
            causes=["activations beyond 65,504, the most that fp16 has", "a loss that diverges"],
            changes={"train.precision": "bf16"},
            not_tested=["which module overflows first"],
            kind=self.kind,
            confidence=0.8,
        )

    def untold(self) -> str | None:
        return None

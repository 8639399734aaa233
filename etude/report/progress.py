"""The figures of a run that goes on, taken from its records as they come, and the time that is left."""

import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from etude.recipe.course import EVALUATE_EVERY
from etude.recipe.schema import Recipe
from etude.records.changes import planned_by
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    Evaluation,
    Event,
    Finding,
    Forecast,
    Generation,
    Resource,
    Step,
)
from etude.records.window import mean_loss, mean_steps
from etude.report.history import metric_value
from etude.report.wording import duration

_RECENT_STEPS = 100  # for the time left: enough to even out, few enough to follow a change of speed
_MOST_LOSSES = 4000


class Pace:
    """The time that is left: recent steps' median, each evaluation that is due, and the share of saving.

    recipe: tells when evaluations are due; without one none are
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        self._recipe = recipe
        parts = recipe.by_task().values() if recipe else ()
        self._is_validated = any(part.data.validation != "none" for part in parts)
        self._attempt: Attempt | None = None
        self._every: int | None = None  # as it was changed
        self._restart(0)

    def write(self, event: Event) -> None:
        match event:
            case Attempt():
                self._attempt = event
                self._restart(event.from_step)
            case Step():
                self._step = event.step
                self._recent.append(event.seconds)
                self._steps_done += 1
            case Evaluation():
                self._evaluated = event.step
                self._evaluations.append(event.seconds)
            case CheckpointSaved():
                self._saving += event.blocking_seconds
            case Control() if event.changes and self._attempt:
                self._attempt = replace(self._attempt, steps=planned_by(event) or self._attempt.steps)
                self._every = event.changes.get(EVALUATE_EVERY, self._every)
            case _:
                return
        self._measured = time.monotonic()

    def remaining(self) -> float | None:
        """Seconds to the last step; None before the first."""
        if not self._recent or self._attempt is None:
            return None
        each = statistics.median(self._recent) + self._saving / self._steps_done
        left = (self._attempt.steps - self._step) * each
        if self._evaluations:
            left += self._evaluations_left() * statistics.fmean(self._evaluations)
        return max(left - (time.monotonic() - self._measured), 0.0)

    def words(self) -> str:
        """The time that is left in words; before an evaluation was made, its share is not known."""
        rest = self.remaining()
        if rest is None or self._attempt is None or self._step >= self._attempt.steps:
            return ""
        is_known = self._evaluations or not self._evaluations_left()
        return f"{'about' if is_known else 'over'} {duration(round(rest))} left"

    def _evaluations_left(self) -> int:
        """Evaluations that are due up to the last step; the one that is going on is among them."""
        if self._recipe is None or self._attempt is None or not self._is_validated:
            return 0
        evaluate, steps = self._recipe.evaluate, self._attempt.steps
        every = (
            self._every
            or evaluate.every_steps
            or (evaluate.every_epochs or 1) * self._attempt.steps_per_epoch
        )
        return steps // every - self._evaluated // every + bool(steps % every and self._evaluated < steps)

    def _restart(self, step: int) -> None:
        """Forget the speed of an earlier attempt, which may have had another machine."""
        self._step = self._evaluated = step
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._evaluations: list[float] = []
        self._steps_done: int = 0
        self._saving: float = 0.0
        self._measured = time.monotonic()


@dataclass
class Progress:
    """The records so far that a picture of a run needs; those that a restart made void are forgotten.

    before   seconds of earlier attempts
    losses   (step, loss) of every step; when they grow too many, of as many steps each, joined
    samples  the texts of the last evaluation, those of evaluate.prompts first
    asked    the signal that asked to stop, or None
    keys     the line on the keys of the view, if it has any
    """

    name: str
    recipe: Recipe
    before: float = 0.0
    attempt: Attempt | None = None
    resource: Resource | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    samples: list[Generation] = field(default_factory=list)
    forecast: Forecast | None = None
    finding: Finding | None = None
    control: Control | None = None
    asked: str | None = None
    is_paused: bool = False
    keys: str = ""
    step: int = 0
    last: Step | None = None
    gap: float | None = None
    pace: Pace = field(init=False)
    _recent: deque[Step] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    _group: list[float] = field(default_factory=list)  # losses that have yet to be joined
    _width: int = 1  # steps that are joined
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self.pace, self._started = Pace(self.recipe), time.monotonic()

    def write(self, event: Event) -> None:
        self.pace.write(event)
        match event:
            case Attempt():
                self._restart(event)
            case Step():
                self._step(event)
            case Resource():
                self.resource = event
            case Evaluation():
                self.evaluations.append(event)
                is_known = self._recent and self.recipe.is_loss_plain
                self.gap = event.loss - self.training_loss if is_known else None
            case Generation():
                same = [text for text in self.samples if text.step == event.step]
                self.samples = sorted([*same, event], key=lambda text: text.reference is not None)
            case Forecast():
                self.forecast = event
            case Finding():
                if self.finding is None or event.severity == "error" or self.finding.severity != "error":
                    self.finding = event
            case Control():
                self.control = event
                if event.action in ("pause", "resume"):
                    self.is_paused = event.action == "pause"
                if self.attempt and (planned := planned_by(event)):
                    self.attempt = replace(self.attempt, steps=planned)

    @property
    def steps(self) -> int:
        """The steps that are planned."""
        return self.attempt.steps if self.attempt else 0

    @property
    def rest(self) -> str:
        """The time that is left in words, or that the run waits."""
        return "paused" if self.is_paused else self.pace.words()

    @property
    def elapsed(self) -> float:
        """Seconds over all attempts; the time between them does not count."""
        return self.before + time.monotonic() - self._started

    @property
    def training_loss(self) -> float:
        """Mean loss of the last steps, as many as the figures of a run take; NaN before the first."""
        count = mean_steps(self.recipe.records.log_every_steps, self.steps)
        return mean_loss([*self._recent][-count:])

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens over seconds of the last log window, or of the steps so far before the first."""
        if self.resource:
            return self.resource.tokens_per_second
        seconds = sum(step.seconds for step in self._recent)
        return sum(step.tokens or step.targets for step in self._recent) / seconds if seconds else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the best checkpoint, by the metric of the recipe."""
        return next((each for each in reversed(self.evaluations) if each.best), None)

    def value(self, evaluation: Evaluation | None) -> float | None:
        """The metric of the recipe at an evaluation."""
        return metric_value(evaluation, self.recipe.evaluate.metric)

    def _step(self, event: Step) -> None:
        self.step, self.last = event.step, event
        self._recent.append(event)
        self._group.append(event.loss)
        if len(self._group) < self._width:
            return
        self.losses.append((event.step, _mean(self._group)))
        self._group = []
        if len(self.losses) > _MOST_LOSSES:
            self._group = [self.losses[-1][1]] * self._width  # of an odd number the last one is left
            pairs = zip(self.losses[::2], self.losses[1::2])
            self.losses = [(step, _mean([before, loss])) for (_, before), (step, loss) in pairs]
            self._width *= 2

    def _restart(self, attempt: Attempt) -> None:
        start = attempt.from_step
        self.attempt, self.step = attempt, start
        self.losses = [point for point in self.losses if point[0] <= start]
        # A start from nothing also repeats the evaluation before the first step.
        self.evaluations = [each for each in self.evaluations if start and each.step <= start]
        self.samples = [text for text in self.samples if start and text.step <= start]
        self._group = []
        self._recent.clear()
        self.is_paused = False
        self.resource = self.control = self.gap = self.last = self.finding = None


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan

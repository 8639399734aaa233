"""Watch a run by the figures of its log, in any training loop."""

import math
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, Protocol

from etude.records.events import Finding
from etude.watch.detectors.collapse import Collapse
from etude.watch.detectors.evaluations import (
    Contamination,
    EndOnNoise,
    EvaluationSpike,
    MetricSplit,
    NoisyEvaluation,
)
from etude.watch.detectors.finite import NonFinite, SkippedSteps
from etude.watch.detectors.frequencies import OnlyFrequencies
from etude.watch.detectors.loss import Divergence, Plateau
from etude.watch.detectors.machine import MemoryCreep, Slowdown, Stall, Starvation
from etude.watch.detectors.passes import Duplicates, EpochStep
from etude.watch.detectors.rate import ClipSaturation, DeadRate, ScaleCollapse
from etude.watch.detectors.spikes import Spike, Spikes
from etude.watch.detectors.unseen import Overfitting, ValidationRise
from etude.watch.detectors.zero import NoGradient
from etude.watch.point import Facts, Point


class Detector(Protocol):
    """A fold over the points of a run: it keeps what it needs of them, and reports a condition once it holds.

    kind  stable name of the condition, as docs/watch.md lists it

    What it says follows from the points alone, so that the same journal gives the same findings. A condition
    is reported once, and again only after it was gone. `observe` takes microseconds: no pass over all points.
    Losses and gradient norms may be infinite or NaN, other figures are finite. It keeps values that cannot
    change, lists, deques, sets and dicts of such values, and objects of such attributes.
    """

    kind: ClassVar[str]

    def __init__(self, facts: Facts) -> None: ...

    def observe(self, point: Point) -> Finding | None:
        """The finding that this point completes."""
        ...

    def untold(self) -> str | None:
        """The reason why it cannot judge, by the points so far; None where it can."""
        ...


# In the order of precedence: what stands before explains what stands after, if `EXPLAINS` says so.
DETECTORS: tuple[type[Detector], ...] = (
    NonFinite, SkippedSteps, NoGradient, ScaleCollapse, DeadRate, Divergence, Collapse, Duplicates,
    Contamination, Spike, Spikes, EvaluationSpike,
    Overfitting, ValidationRise, EpochStep, ClipSaturation, OnlyFrequencies,
    Plateau, MetricSplit, NoisyEvaluation, EndOnNoise,
    Stall, Starvation, MemoryCreep, Slowdown,
)  # fmt: skip
# Symptoms by the condition that brings them about. They are not reported while it is new; what costs the
# weights, figures that are not finite and steps that are skipped, always is.
EXPLAINS: dict[str, set[str]] = {
    "non_finite": {
        "divergence", "spike", "spikes", "evaluation_spike", "validation_rise", "clip_saturation", "plateau",
        "scale_collapse",
    },
    "no_gradient": {"first_pass_collapse", "epoch_step", "plateau", "noisy_evaluation"},
    "scale_collapse": {"divergence", "spike", "spikes", "evaluation_spike"},
    "dead_learning_rate": {"plateau", "noisy_evaluation"},
    "divergence": {
        "spike", "spikes", "evaluation_spike", "overfitting", "validation_rise", "clip_saturation", "plateau",
        "scale_collapse", "noisy_evaluation", "metric_split", "contamination",
    },
    "first_pass_collapse": {
        "plateau", "epoch_step", "contamination", "duplicates", "overfitting",
    },
    "spike": {"spikes", "evaluation_spike"},
    "overfitting": {"validation_rise", "epoch_step"},
    "stall": {"slowdown", "data_starvation"},
    "data_starvation": {"slowdown"},
}  # fmt: skip
_NEW_POINTS = 200
_MOST_POINTS = 100_000  # 35 MB
_STRIDE = 1_000  # points between snapshots: 100 microseconds each
_MOST = sys.float_info.max
# Figures that are finite, with the least and the most of each.
_POSSIBLE = (
    ("epoch", -_MOST, _MOST), ("repeated_loss", -_MOST, _MOST), ("new_loss", -_MOST, _MOST),
    *((name, 0, _MOST) for name in (
        "learning_rate", "loss_scale", "update_ratio", "seconds", "wait_seconds", "tokens_per_second",
        "eval_error",
    )),
    *((name, 0, 2**63) for name in ("targets", "memory_bytes", "repeated_rows")),
)  # fmt: skip


class Snapshot(NamedTuple):
    """The state of a watcher after so many points, the last of them at `step`.

    found     number of points at the latest finding, by kind
    findings  number of them
    """

    points: int
    step: float
    detectors: list[Detector]
    found: dict[str, int]
    findings: int


class Watcher:
    """Tells what is wrong with a run from its figures alone: feed it each log line, and read the findings.

    >>> watcher = Watcher(classes=50_257, steps=1_000)
    >>> watcher.observe(step=1, loss=float("nan"))[0].kind
    'non_finite'
    """

    def __init__(self, *, ignore: Collection[str] = (), **facts: Any) -> None:
        """facts: those of `Facts` that are known; ignore: kinds of findings. Raises: TypeError for others."""
        self._facts = Facts(**facts)
        self._ignore = frozenset(ignore)
        self._restart()

    @classmethod
    def of(cls, facts: Facts, ignore: Collection[str] = ()) -> "Watcher":
        """A watcher of a run with these facts, without the detectors of the kinds to ignore."""
        watcher = cls(ignore=ignore)
        watcher._facts = facts
        watcher._restart()
        return watcher

    def observe(
        self,
        *,
        step: int,
        loss: float | None = None,
        eval_loss: float | None = None,
        metrics: Mapping[str, float] | None = None,
        **figures: Any,
    ) -> list[Finding]:
        """Take in the figures of a step, all of `Point`; returns what they show.

        A step that was observed before means that training went back: what was observed from it on is void.
        Raises: TypeError for figures that `Point` does not have.
        """
        point = Point(step=step, loss=loss, eval_loss=eval_loss, metrics=metrics or {}, **figures)
        return self.add(point)

    def add(self, *points: Point) -> list[Finding]:
        """Take in points, many in half the time of each alone; returns what they show. As `observe`."""
        found: list[Finding] = []
        start = 0
        while start < len(points):
            if points[start].step < (self._points or self._snapshots)[-1].step:
                self.rewind(points[start].step - 1)
            end = start + 1
            last = min(len(points), start + _STRIDE - self._count % _STRIDE)
            while end < last and points[end].step >= points[end - 1].step:
                end += 1
            found += self._add_in_order([_without_impossible(each) for each in points[start:end]])
            start = end
        return found

    def _add_in_order(self, points: Sequence[Point]) -> list[Finding]:
        """Take in points up to the next snapshot."""
        self._points += points
        found = self._take(points)
        if self._count % _STRIDE == 0:
            self._keep(points[-1].step)
            if len(self._points) > _MOST_POINTS:
                first, second, *_ = self._snapshots
                del self._snapshots[0], self._points[: second.points - first.points]
        return found

    def rewind(self, step: int) -> None:
        """Forget what was observed after a step, as training does that goes on from a checkpoint of it.

        At least the last 30,000 points can be gone back to; before them all is forgotten. It takes as long as
        the points that became void did, however often a run goes back.
        """
        if step < self._snapshots[0].step:
            self._restart()
            return
        del self._points[bisect_right(self._points, step, key=lambda each: each.step) :]
        first = self._snapshots[0].points
        while self._snapshots[-1].points > first + len(self._points):
            self._snapshots.pop()
        self._restore()
        left = len(self._points) - (self._count - first)
        for point in self._points[self._count - first :]:
            self._take([point])
            left -= 1
            if left.bit_count() <= 1:  # the next time goes back as far, or a little further
                self._keep(point.step)

    def overdue(self, seconds: float) -> Finding | None:
        """The finding of a run that has been silent for so many seconds, if that is long for it."""
        return next((each.overdue(seconds) for each in self._detectors if isinstance(each, Stall)), None)

    def untold(self) -> dict[str, str]:
        """The reasons why conditions cannot be judged by the points so far, by kind."""
        return {each.kind: reason for each in self._detectors if (reason := each.untold())}

    def _is_explained(self, kind: str, now: int) -> bool:
        """True if a condition that brings this one about was found not long ago; else notes this one.

        now: the number of points.
        """
        for cause, at in self._found.items():
            if kind in EXPLAINS.get(cause, ()) and now - at <= _NEW_POINTS:
                return True
        self._found[kind] = now
        return False

    def _take(self, points: Sequence[Point]) -> list[Finding]:
        """Let each detector read all points in a row, while its code and values are at hand."""
        told: list[tuple[int, Finding]] = []
        for each in self._detectors:
            observe = each.observe
            told += [(place, new) for place, point in enumerate(points, 1) if (new := observe(point))]
        told.sort(key=itemgetter(0))  # of a point they stay in the order of precedence
        found = [new for place, new in told if not self._is_explained(new.kind, self._count + place)]
        self._count += len(points)
        self.findings += found
        return found

    def _keep(self, step: int) -> None:
        """Take a snapshot; of others keep the first, and the oldest of 2 to 3, 4 to 7 ... points before."""
        others = reversed(self._snapshots[1:])
        oldest = {(self._count - each.points).bit_length(): each for each in others}
        detectors = [_copy(each) for each in self._detectors]
        new = Snapshot(self._count, step, detectors, dict(self._found), len(self.findings))
        self._snapshots[1:] = [*reversed(oldest.values()), new]

    def _restore(self) -> None:
        """Take on the state of the latest snapshot."""
        state = self._snapshots[-1]
        self._count: int = state.points
        self._detectors: list[Detector] = [_copy(each) for each in state.detectors]
        self._found = dict(state.found)
        del self.findings[state.findings :]

    def _restart(self) -> None:
        wanted = (detector for detector in DETECTORS if detector.kind not in self._ignore)
        detectors: list[Detector] = [detector(self._facts) for detector in wanted]
        self._snapshots = [Snapshot(0, -math.inf, detectors, {}, 0)]
        self._points: list[Point] = []  # since the first snapshot
        self.findings: list[Finding] = []
        self._restore()


def _copy(value: Any) -> Any:
    """A copy of a detector's state; what cannot change is shared."""
    if isinstance(value, int | float | str | tuple | Facts | None):
        return value
    if isinstance(value, list | deque | set | dict):
        return value.copy()
    new = object.__new__(type(value))
    for name in getattr(value, "__slots__", None) or vars(value):
        setattr(new, name, _copy(getattr(value, name)))
    return new


def _without_impossible(point: Point) -> Point:
    """The point without figures that no run has: negative times, rates and counts, or such without end.

    Losses and norms stay, where NaN and infinity say something.
    """
    for name, least, most in _POSSIBLE:
        value = getattr(point, name)
        if value is not None and not least <= value <= most:
            break
    else:
        if all(map(math.isfinite, point.metrics.values())):
            return point
    figures = ((name, getattr(point, name), least, most) for name, least, most in _POSSIBLE)
    impossible = [name for name, value, least, most in figures if value is None or not least <= value <= most]
    unknown: dict[str, Any] = dict.fromkeys(impossible)
    metrics = {name: value for name, value in point.metrics.items() if math.isfinite(value)}
    return replace(point, metrics=metrics, **unknown)

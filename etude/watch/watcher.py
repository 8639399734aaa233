"""Watch a run by the figures of its log, in any training loop."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

from etude.records.events import Finding
from etude.watch.detectors.finite import NonFinite, SkippedSteps
from etude.watch.point import Facts, Point


class Detector(Protocol):
    """A fold over the points of a run: it keeps what it needs of them, and reports a condition once it holds.

    kind  stable name of the condition, as docs/watch.md lists it

    What it says follows from the points alone, so that the same journal gives the same findings. A condition
    is reported once, and again only after it was gone. `observe` takes microseconds: no pass over all points.
    """

    kind: ClassVar[str]

    def __init__(self, facts: Facts) -> None: ...

    def observe(self, point: Point) -> Finding | None:
        """The finding that this point completes."""
        ...


DETECTORS: tuple[type[Detector], ...] = (NonFinite, SkippedSteps)


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
        self._points: list[Point] = []
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

    def add(self, point: Point) -> list[Finding]:
        """Take in a point; returns what it shows. As `observe`."""
        if self._points and point.step < self._points[-1].step:
            self.rewind(point.step - 1)
        self._points.append(point)
        found = [finding for each in self._detectors if (finding := each.observe(point))]
        self.findings += found
        return found

    def rewind(self, step: int) -> None:
        """Forget what was observed after a step, as training does that goes on from a checkpoint of it."""
        kept = [each for each in self._points if each.step <= step]
        self._points = []
        self._restart()
        for each in kept:
            self.add(each)

    def _restart(self) -> None:
        wanted = (detector for detector in DETECTORS if detector.kind not in self._ignore)
        self._detectors = [detector(self._facts) for detector in wanted]
        self.findings: list[Finding] = []

"""Losses and gradients that are not finite."""

import math
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point

_LOWER = "lower optim.learning_rate"
_WIDER = {"fp16": ", or set train.precision to bf16 or fp32", "bf16": ", or set train.precision to fp32"}
_LASTING = 3  # norms in a row, which no skipped step explains
_MANY, _MANY_IN_FP16 = 10, 30  # skipped steps in a row; fp16 needs a few to find its scale


class NonFinite:
    """A loss or gradient norm that is NaN or infinite in an update that was made, or in an evaluation.

    Rule: any value that is not finite, once until the same figure was finite again. Where the precision is
    unknown, as in a log, a norm beside a finite loss may be of a step that the loss scaling of fp16 skipped:
    a remark, and an error once 3 follow each other. Delay: none, or 3 points. False alarms: none by
    construction.
    """

    kind: ClassVar[str] = "non_finite"

    def __init__(self, facts: Facts) -> None:
        self._broken: set[str] = set()
        self._may_skip = facts.precision is None
        self._norms = 0  # in a row that are not finite

    def observe(self, point: Point) -> Finding | None:
        if point.skipped:
            return None
        figures = (
            ("loss", point.loss),
            ("gradient norm", point.grad_norm),
            ("validation loss", point.eval_loss),
        )
        new = []
        for name, value in figures:
            if value is None:
                continue
            if math.isfinite(value):
                self._broken.discard(name)
            elif name not in self._broken:
                self._broken.add(name)
                new.append(f"{name} {value}")
        if point.grad_norm is not None:
            self._norms = 0 if math.isfinite(point.grad_norm) else self._norms + 1
        is_norm = self._may_skip and self._broken == {"gradient norm"}
        if is_norm and self._norms == _LASTING:
            new = [f"gradient norm {point.grad_norm} at the last {_LASTING} points, the latest"]
        if not new:
            return None
        if is_norm and self._norms < _LASTING:
            return self._maybe_skipped(point)
        return Finding(
            point.step,
            "a figure is not finite",
            f"{', '.join(new)} at step {point.step:,}",
            f"{_LOWER}, and look at the data of this step",
            severity="error",
            window=[point.step, point.step],
            kind=self.kind,
            confidence=1.0,
        )

    def _maybe_skipped(self, point: Point) -> Finding:
        beside = "" if point.loss is None else f" beside a loss of {point.loss:.4g}"
        return Finding(
            point.step,
            "a gradient norm is not finite",
            f"gradient norm {point.grad_norm} at step {point.step:,}{beside}",
            "nothing to do where fp16 scales the loss; else see the losses after it and the data of the step",
            severity="info",
            window=[point.step, point.step],
            causes=[
                "a step that the loss scaling of fp16 skipped: no fault",
                "an update that broke the weights",
            ],
            not_tested=["whether the update was made"],
            kind=self.kind,
            confidence=0.6,
        )

    def untold(self) -> str | None:
        return None


class SkippedSteps:
    """Steps that changed no weight, because their loss or gradient was not finite.

    At the first, second, fourth, eighth ... of a run a warning; an error once 10 follow each other (30 in
    fp16), as nothing is learnt any more.
    """

    kind: ClassVar[str] = "skipped_steps"

    def __init__(self, facts: Facts) -> None:
        self._wider = _WIDER.get(facts.precision or "", "")
        self._many = _MANY_IN_FP16 if facts.precision == "fp16" else _MANY
        self._rate = facts.peak_learning_rate
        self._count = self._in_a_row = self._first = 0

    def observe(self, point: Point) -> Finding | None:
        if not point.skipped:
            self._in_a_row = 0 if point.loss is not None else self._in_a_row
            return None
        self._count, self._in_a_row = self._count + 1, self._in_a_row + 1
        self._first = point.step if self._in_a_row == 1 else self._first
        advice = f"{_LOWER}{self._wider}"
        if self._in_a_row == self._many:
            return Finding(
                point.step,
                "nothing is learnt any more",
                f"the last {self._many} steps had no finite loss or gradient and changed no weight",
                advice,
                severity="error",
                window=[self._first, point.step],
                changes={"optim.learning_rate": self._rate * 0.3} if self._rate else {},
                kind=self.kind,
                confidence=1.0,
            )
        if self._count.bit_count() != 1:
            return None
        so_far = f"; {self._count:,} steps so far" if self._count > 1 else ""
        return Finding(
            point.step,
            "non-finite step",
            f"{_figures(point)}{so_far}",
            f"the weights were left as they were; try: {advice}",
            window=[point.step, point.step],
            kind=self.kind,
            confidence=1.0,
        )

    def untold(self) -> str | None:
        return None


def _figures(point: Point) -> str:
    figures = (("loss", point.loss), ("gradient norm", point.grad_norm))
    known = [f"{name} {value:.4g}" for name, value in figures if value is not None]
    return ", ".join(known) or f"step {point.step:,} was skipped"

"""Losses and gradients that are not finite."""

import math
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point


class NonFinite:
    """A loss or gradient norm that is NaN or infinite, at the first point that has one."""

    kind: ClassVar[str] = "non_finite"

    def __init__(self, facts: Facts) -> None:
        self._precision = facts.precision
        self._is_finite = True

    def observe(self, point: Point) -> Finding | None:
        figures = {"loss": point.loss, "gradient norm": point.grad_norm, "validation loss": point.eval_loss}
        broken = [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value or 0.0)]
        was_finite, self._is_finite = self._is_finite, not broken or self._is_search_for_scale(point)
        if self._is_finite or not was_finite:
            return None
        return Finding(
            point.step,
            "a figure is not finite",
            f"{', '.join(broken)} at step {point.step:,}",
            "lower optim.learning_rate, or train in fp32",
            severity="error",
            window=[point.step, point.step],
            kind=self.kind,
            confidence=1.0,
        )

    def _is_search_for_scale(self, point: Point) -> bool:
        """fp16 skips steps on purpose until its loss scale fits; only a loss that is not finite counts."""
        return self._precision == "fp16" and point.skipped and math.isfinite(point.loss or 0.0)

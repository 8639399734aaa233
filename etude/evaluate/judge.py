"""The best moment of a run, and the evaluations since anything improved."""

import math
from dataclasses import dataclass
from typing import Any

from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Evaluate
from etude.records.folder import checkpoint_name, step_of
from etude.text import plural


@dataclass
class Judge:
    """Compares the values of one metric; what is not finite is never the best.

    best     {"checkpoint", "metric", "value", "step"} as best.json has it, or None before the first
    counted  the value that was the last to count for patience, above which gains add up; None is that of best
    """

    recipe: Evaluate
    chosen: ChosenMetric
    best: dict[str, Any] | None = None
    evaluations_without_improvement: int = 0
    counted: float | None = None

    def judge(self, value: float, step: int, *, metric: str | None = None) -> bool:
        """Take in a value; returns whether it is the best so far. metric: instead of the recipe's."""
        best = None if self.best is None else float(self.best["value"])
        is_best = self._is_better(value, best, 0.0)
        improved = self._is_better(
            value, best if self.counted is None else self.counted, self.recipe.min_improvement
        )
        self.evaluations_without_improvement = 0 if improved else self.evaluations_without_improvement + 1
        self.counted = value if improved else best if self.counted is None else self.counted
        if is_best:
            name = metric or str(self.chosen)
            self.best = {"checkpoint": checkpoint_name(step), "metric": name, "value": value, "step": step}
        return is_best

    @property
    def best_step(self) -> int | None:
        """The step of the best moment."""
        return step_of(self.best["checkpoint"]) if self.best else None

    def why_stop(self, patience: int | None) -> str | None:
        """The reason to stop after so many evaluations without improvement; None to go on."""
        if patience is not None and self.evaluations_without_improvement >= patience:
            return f"no improvement in {plural(patience, 'evaluation')}"
        return None

    def _is_better(self, value: float, than: float | None, margin: float) -> bool:
        if not math.isfinite(value):
            return False
        return than is None or self.chosen.gain(value, than) > margin

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

    best  {"checkpoint", "metric", "value", "step"} as best.json has it, or None before the first
    """

    recipe: Evaluate
    chosen: ChosenMetric
    best: dict[str, Any] | None = None
    evaluations_without_improvement: int = 0

    def judge(self, value: float, step: int, *, metric: str | None = None) -> bool:
        """Take in a value; returns whether it is the best so far. metric: instead of the recipe's."""
        is_best = self._is_better(value, 0.0)
        improved = self._is_better(value, self.recipe.min_improvement)
        self.evaluations_without_improvement = 0 if improved else self.evaluations_without_improvement + 1
        if is_best:
            name = metric or str(self.chosen)
            self.best = {"checkpoint": checkpoint_name(step), "metric": name, "value": value, "step": step}
        return is_best

    @property
    def best_step(self) -> int | None:
        """The step of the best moment."""
        return step_of(self.best["checkpoint"]) if self.best else None

    def why_stop(self) -> str | None:
        patience = self.recipe.patience
        if patience is not None and self.evaluations_without_improvement >= patience:
            return f"no improvement in {plural(patience, 'evaluation')}"
        return None

    def _is_better(self, value: float, margin: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        return self.chosen.gain(value, float(self.best["value"])) > margin

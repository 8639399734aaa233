"""The success criteria of a recipe, judged from the records of its run."""

import math
from collections.abc import Sequence
from itertools import pairwise

from etude.recipe.schema import Criterion
from etude.records.events import Evaluation, Event, Judgement, Scores, Step
from etude.records.window import mean_loss, mean_steps

_SHARE, _LEAST = 0.05, 10  # of the planned steps, over whose mean a fall is measured


class Criteria:
    """A fold over the records of a run that judges its criteria after each evaluation and final scores.

    gap            validation loss less the mean training loss before it
    steepest_fall  largest fall of the training loss from one twentieth of the planned steps to the next, as
                   a share of the first
    progress       share of the planned steps that are done; not above a limit is open until the last
    test:METRIC    of the final scores; other names are metrics of evaluations, or their loss
    """

    def __init__(self, criteria: Sequence[Criterion], steps: int, log_every_steps: int | None) -> None:
        self._criteria, self._planned = criteria, steps
        self._window = mean_steps(log_every_steps, steps)
        self._stretch = max(round(_SHARE * steps), _LEAST)
        self._steps: list[Step] = []
        self._evaluation: Evaluation | None = None
        self._tests: dict[str, float] = {}

    def observe(self, event: Event) -> Judgement | None:
        """The judgement that a record leads to."""
        if isinstance(event, Evaluation) and event.asked:
            return None
        if isinstance(event, Step):
            self._steps.append(event)
        elif isinstance(event, Evaluation):
            self._evaluation = event
        elif isinstance(event, Scores) and event.split == "test":
            self._tests |= {f"test:{name}": value for name, (value, *_) in event.systems["after"].items()}
        is_judged = isinstance(event, Evaluation | Scores) and event.step > 0
        return self._judge(event.step) if is_judged and self._criteria else None  # type: ignore[union-attr]

    def rewind(self, step: int) -> None:
        """Forget what came after a step, from which the run goes on."""
        self._steps = [each for each in self._steps if each.step <= step]

    def _judge(self, step: int) -> Judgement:
        values = {str(each): self._measure(each.figure) for each in self._criteria}
        met = []
        for each in self._criteria:
            value = values[str(each)]
            is_above = each.above is not None and value is not None and value > each.above
            if is_above or (each.below is not None and value is not None and value < each.below):
                met.append(str(each))
        is_over = step >= self._planned
        late = [str(each) for each in self._criteria if each.figure == "progress" and each.above is not None]
        return Judgement(step, values, met, [each for each in late if not is_over and each not in met])

    def _measure(self, figure: str) -> float | None:
        """A figure after the last evaluation; None if it was not measured, or is not finite."""
        value: float | None
        if figure == "gap":
            before = mean_loss(self._steps[-self._window :])
            value = self._evaluation.loss - before if self._evaluation else None
        elif figure == "progress":
            value = self._steps[-1].step / self._planned if self._steps else None
        elif figure == "steepest_fall":
            value = self._steepest_fall()
        elif figure.startswith("test:"):
            value = self._tests.get(figure)
        else:
            evaluation = self._evaluation
            named = {} if evaluation is None else {**vars(evaluation), **evaluation.metrics}
            value = named.get(figure)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def _steepest_fall(self) -> float | None:
        size = self._stretch
        means = [mean_loss(self._steps[start : start + size]) for start in range(0, len(self._steps), size)]
        falls = [(before - after) / (means[0] or math.nan) for before, after in pairwise(means)]
        return max((fall for fall in falls if math.isfinite(fall)), default=None)

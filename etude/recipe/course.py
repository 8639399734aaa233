"""The course of a run: its recipe and the dated changes of it. Both are data, and a checkpoint holds both."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from etude.errors import RecipeError
from etude.recipe.load import change as change_values
from etude.recipe.load import recipe_from
from etude.recipe.schedule import learning_rate_ratio
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator
from etude.text import shorten

SKIP = "data.skip_steps"
KEYS = (
    "optim.learning_rate", "train.max_grad_norm", "train.micro_batch_size", "schedule.kind",
    "schedule.warmup_steps", "schedule.min_lr_ratio", "schedule.decay_ratio", SKIP,
)  # fmt: skip
_CHANGEABLE = "optim.learning_rate, train.max_grad_norm, train.micro_batch_size, schedule.* and " + SKIP
_MOST_CHANGES = 1000
_MOST_SKIPPED = 2**40


@dataclass(frozen=True)
class Change:
    """Another value of one key of the recipe, from the step after `step` on.

    key    one of KEYS; `data.skip_steps` leaves out the batches of so many steps, once
    value  as a recipe holds it; None for a key that is not set
    """

    step: int
    key: str
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class StepSettings:
    """The settings of one step. `micro_batch_size` counts samples of one rank."""

    learning_rate: float
    max_grad_norm: float | None
    micro_batch_size: int


@dataclass(frozen=True)
class Course:
    """A recipe over a number of steps, and its changes in the order of their steps.

    A `train.micro_batch_size` of "auto" stands for all samples that a rank has in a step.

    Raises: RecipeError if a change cannot be made, by its key and step.
    """

    recipe: Recipe
    steps: int
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        if len(self.changes) > _MOST_CHANGES:
            raise RecipeError([f"the run has {len(self.changes):,} changes; it takes {_MOST_CHANGES:,}"])
        object.__setattr__(self, "changes", tuple(sorted(self.changes, key=lambda change: change.step)))
        _ = self._recipes

    def at(self, step: int) -> StepSettings:
        """The settings of the step that follows `step` others."""
        recipe = self.recipe_at(step)
        micro = recipe.train.micro_batch_size
        ratio = learning_rate_ratio(step, recipe.schedule, steps=self.steps)
        return StepSettings(
            recipe.optim.learning_rate * ratio,
            recipe.train.max_grad_norm,
            micro if isinstance(micro, int) else self._samples,
        )

    def recipe_at(self, step: int) -> Recipe:
        """The recipe of the step that follows `step` others."""
        return self._recipes[bisect_right(self._dates, step)]

    def data_step(self, step: int) -> int:
        """The step of the unchanged run that has the batches of the step that follows `step` others."""
        return step + sum(int(each.value) for each in self.changes if each.key == SKIP and each.step <= step)

    def until(self, step: int) -> int:
        """The number of steps that are done when the next change comes, or the run ends."""
        return next((date for date in self._dates if date > step), self.steps)

    def with_changes(self, changes: Iterable[Change]) -> "Course":
        """The course with further changes. Raises: RecipeError."""
        return Course(self.recipe, self.steps, (*self.changes, *changes))

    def halve(self, step: int, reason: str) -> Change | None:
        """The change to micro-batches of at most half the samples after a step; None if they have one."""
        size = self.at(step).micro_batch_size
        smaller = next((each for each in range(size // 2, 0, -1) if self._samples % each == 0), None)
        return Change(step, "train.micro_batch_size", smaller, reason) if smaller else None

    @cached_property
    def _dates(self) -> list[int]:
        return sorted({change.step for change in self.changes})

    @cached_property
    def _recipes(self) -> list[Recipe]:
        """The recipe as given, and as it is from each date on."""
        recipes = [self.recipe]
        for date, changes in groupby(self.changes, key=lambda change: change.step):
            recipes.append(self._apply(recipes[-1], date, list(changes)))
        return recipes

    @cached_property
    def _samples(self) -> int:
        """Samples of a rank in a step."""
        train = self.recipe.train
        if train.global_batch_size is not None:
            return train.global_batch_size // train.devices
        assert isinstance(train.micro_batch_size, int) and train.accumulation is not None
        return train.micro_batch_size * train.accumulation

    def _apply(self, recipe: Recipe, date: int, changes: list[Change]) -> Recipe:
        """The recipe with the changes of one date, which are checked together."""
        where = Locator("", f"change at step {date:,}", {})
        problems = [problem for change in changes for problem in self._problems(change, where)]
        if problems:
            raise RecipeError(problems)
        values = {change.key: change.value for change in changes if change.key != SKIP}
        checked = recipe_from(change_values(recipe.to_dict(), values), where)
        if checked.schedule.warmup_steps >= self.steps:
            name = where.name(("schedule", "warmup_steps"))
            warmup = checked.schedule.warmup_steps
            raise RecipeError([f"{name} is {warmup:,}; it must be below the {self.steps:,} steps of the run"])
        return checked

    def _problems(self, change: Change, where: Locator) -> Iterable[str]:
        """Problems of a change that the checks of a recipe do not find."""
        name, value = where.name(tuple(change.key.split("."))), change.value
        is_whole = type(value) is int and value > 0
        if change.key not in KEYS:
            yield f"{name} cannot be changed while a run goes on; {_CHANGEABLE} can"
        elif not 0 <= change.step < self.steps:
            yield f"{name} must come after 0 to {self.steps - 1:,} steps"
        elif change.key == SKIP and not (is_whole and value <= _MOST_SKIPPED):
            yield f"{name} is {shorten(repr(value), 40)}; it must be a whole number above 0; try 1"
        elif change.key == "train.micro_batch_size" and not (is_whole and self._samples % value == 0):
            shown = shorten(repr(value), 40)
            yield f"{name} is {shown}; it must divide the {self._samples:,} samples that a rank has in a step"

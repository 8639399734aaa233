"""The course of a run: its recipe and the dated changes of it. Both are data, and a checkpoint holds both."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from etude.errors import RecipeError
from etude.recipe.load import change as change_values
from etude.recipe.load import flatten, recipe_from
from etude.recipe.schedule import learning_rate_ratio
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator
from etude.text import shorten

SKIP = "data.skip_steps"
_MICRO, _BATCH = "train.micro_batch_size", "train.global_batch_size"
RECOMPUTE = "train.activation_checkpointing"
LAYOUT_KEYS = (_MICRO, RECOMPUTE)  # which leave the mathematics of a step as it is
KEYS = (
    "optim.learning_rate", "train.max_grad_norm", *LAYOUT_KEYS, _BATCH, "schedule.kind",
    "schedule.warmup_steps", "schedule.min_lr_ratio", "schedule.decay_ratio", SKIP,
)  # fmt: skip
_CHANGEABLE = (
    f"optim.learning_rate, train.max_grad_norm, {_MICRO}, {_BATCH}, {RECOMPUTE}, schedule.* and {SKIP}"
)
_MOST_CHANGES = 1000
_MOST_SKIPPED = 2**40


@dataclass(frozen=True)
class Change:
    """Another value of one key of the recipe, from the step after `step` on.

    key      one of KEYS; `data.skip_steps` leaves out the batches of so many steps, once
    value    as a recipe holds it; None for a key that is not set
    request  the id of the request that it answers
    who      asked for it, and by which channel; None where the run itself decided
    """

    step: int
    key: str
    value: Any
    reason: str = ""
    request: str | None = None
    who: str | None = None
    channel: str | None = None


@dataclass(frozen=True)
class StepSettings:
    """The settings of one step.

    micro_batch_size   samples of one rank
    global_batch_size  samples of all ranks in the step
    recompute          whether activations are computed again for the gradients
    """

    learning_rate: float
    max_grad_norm: float | None
    micro_batch_size: int
    global_batch_size: int
    recompute: bool


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
            micro if isinstance(micro, int) else self._samples(recipe),
            self._samples(recipe) * recipe.train.devices,
            recipe.train.activation_checkpointing,
        )

    def recipe_at(self, step: int) -> Recipe:
        """The recipe of the step that follows `step` others."""
        return self._recipes[bisect_right(self._dates, step)]

    def data_step(self, step: int, count: int) -> int:
        """The step with the batch of the step that follows `step` others, in a run that always had its size.

        count: the samples of an epoch. Where the batch becomes smaller, it goes on with the next sample.
        """
        place, done, size = 0, 0, self._samples(self.recipe) * self.recipe.train.devices
        for change in self.changes:
            if change.step > step:
                break
            place, done = place + change.step - done, change.step
            if change.key == SKIP:
                place += int(change.value)
            elif change.key == _BATCH:
                epoch, within = divmod(place, -(-count // size))
                place = epoch * -(-count // change.value) + within * (size // change.value)
                size = change.value
        return place + step - done

    def until(self, step: int) -> int:
        """The number of steps that are done when the next change comes, or the run ends."""
        return next((date for date in self._dates if date > step), self.steps)

    def with_changes(self, changes: Iterable[Change]) -> "Course":
        """The course with further changes. Raises: RecipeError."""
        return Course(self.recipe, self.steps, (*self.changes, *changes))

    def before(self, change: Change) -> Any:
        """The value that a change of this course replaces; None for a key that was not set."""
        earlier = self.changes[: self.changes.index(change)]
        values = [each.value for each in earlier if each.key == change.key]
        return values[-1] if values else flatten(self.recipe.to_dict()).get(change.key)

    def halve(self, step: int, reason: str, *, keep_batch: bool = True) -> list[Change]:
        """The changes to micro-batches of at most half the samples after a step; none if they have one.

        keep_batch: as many more of them make a step; else they stay as many, and the batch becomes smaller.
        """
        settings = self.at(step)
        size, batch = settings.micro_batch_size, settings.global_batch_size
        whole = self._samples(self.recipe_at(step)) if keep_batch else size
        smaller = next((each for each in range(size // 2, 0, -1) if whole % each == 0), None)
        if smaller is None:
            return []
        changes = [Change(step, _MICRO, smaller, reason)]
        return changes if keep_batch else [Change(step, _BATCH, batch * smaller // size, reason), *changes]

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

    def _samples(self, recipe: Recipe) -> int:
        """Samples of a rank in a step under the recipe of a date."""
        train = self.recipe.train  # whose micro-batches the accumulation counts
        if recipe.train.global_batch_size is not None:
            return recipe.train.global_batch_size // train.devices
        assert isinstance(train.micro_batch_size, int) and train.accumulation is not None
        return train.micro_batch_size * train.accumulation

    def _apply(self, recipe: Recipe, date: int, changes: list[Change]) -> Recipe:
        """The recipe with the changes of one date, which are checked together."""
        where = Locator("", f"change at step {date:,}", {})
        values = {change.key: change.value for change in changes if change.key != SKIP}
        samples = [self._samples(recipe)]  # that a rank has in a step: before, and with each smaller batch
        problems: list[str] = []
        for change in changes:
            problems += self._problems(change, where, samples)
            if change.key == _BATCH and not problems:
                samples.append(change.value // self.recipe.train.devices)
        if problems:
            raise RecipeError(problems)
        if _BATCH in values:
            values["train.accumulation"] = None
        checked = recipe_from(change_values(recipe.to_dict(), values), where)
        if checked.schedule.warmup_steps >= self.steps:
            name = where.name(("schedule", "warmup_steps"))
            warmup = checked.schedule.warmup_steps
            raise RecipeError([f"{name} is {warmup:,}; it must be below the {self.steps:,} steps of the run"])
        return checked

    def _problems(self, change: Change, where: Locator, samples: list[int]) -> Iterable[str]:
        """Problems of a change that the checks of a recipe do not find."""
        name, value = where.name(tuple(change.key.split("."))), change.value
        is_whole, shown = type(value) is int and value > 0, shorten(repr(value), 40)
        batch = samples[-1] * self.recipe.train.devices
        if change.key not in KEYS:
            yield f"{name} cannot be changed while a run goes on; {_CHANGEABLE} can"
        elif not 0 <= change.step < self.steps:
            yield f"{name} must come after 0 to {self.steps - 1:,} steps"
        elif change.key == SKIP and not (is_whole and value <= _MOST_SKIPPED):
            yield f"{name} is {shown}; it must be a whole number above 0; try 1"
        elif change.key == _MICRO and not (is_whole and any(each % value == 0 for each in samples)):
            yield f"{name} is {shown}; it must divide the {samples[-1]:,} samples that a rank has in a step"
        elif change.key == _BATCH and not (is_whole and batch % value == 0 and value < batch):
            yield f"{name} is {shown}; it must be a smaller part of {batch:,}, as {max(batch // 2, 1):,} is"

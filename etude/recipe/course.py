"""The course of a run: its recipe and the dated changes of it. Both are data, and a checkpoint holds both."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from etude.errors import RecipeError
from etude.recipe.life import is_beside
from etude.recipe.load import change as change_values
from etude.recipe.load import flatten, recipe_from
from etude.recipe.problems import advise_unknown
from etude.recipe.schedule import flat_until, learning_rate_ratio
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator, toml_text
from etude.text import plural, shorten

SKIP = "data.skip_steps"
_MICRO, _BATCH = "train.micro_batch_size", "train.global_batch_size"
RECOMPUTE = "train.activation_checkpointing"
LAYOUT_KEYS = (_MICRO, RECOMPUTE)  # which leave the mathematics of a step as it is
REMEDY_KEYS = (
    "optim.learning_rate", "train.max_grad_norm", *LAYOUT_KEYS, _BATCH, "schedule.kind",
    "schedule.warmup_steps", "schedule.min_lr_ratio", "schedule.decay_ratio", SKIP,
)  # fmt: skip
STEPS, PATIENCE, EVALUATE_EVERY = "train.steps", "evaluate.patience", "evaluate.every_steps"
KEYS = (
    *REMEDY_KEYS, STEPS, PATIENCE, EVALUATE_EVERY, "checkpoint.every_steps", "records.log_every_steps",
)  # fmt: skip
# Keys that a fork may have otherwise from its first own step on, and a run that goes on may not.
FORK_KEYS = (
    "optim.weight_decay", "optim.beta1", "optim.beta2", "optim.eps", "optim.momentum",
    "optim.matrix_rate_ratio", "train.on_oom",
    "evaluate.min_improvement", "evaluate.prompts", "evaluate.sample_tokens", "evaluate.temperature",
    "evaluate.top_k", "evaluate.top_p", "checkpoint.keep", "checkpoint.keep_at", "watch.policy",
    "watch.recoveries", "watch.ignore", "records.trackers", "records.title", "records.tags", "records.author",
)  # fmt: skip
CHANGEABLE = (
    "optim.learning_rate, train.max_grad_norm, train.steps, schedule.*, evaluate.patience, "
    "evaluate.every_steps, checkpoint.every_steps and others (docs/steering.md)"
)
# A key that stands for another one, which is not set any more where this one is.
_INSTEAD = {
    _BATCH: "train.accumulation", STEPS: "train.epochs", EVALUATE_EVERY: "evaluate.every_epochs",
    "checkpoint.every_steps": "checkpoint.every_minutes",
}  # fmt: skip
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

    steps  that the recipe gives; a change of `train.steps` gives others from its own step on

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
        _ = self._stretches

    def at(self, step: int) -> StepSettings:
        """The settings of the step that follows `step` others."""
        recipe = self.recipe_at(step)
        micro = recipe.train.micro_batch_size
        ratio = learning_rate_ratio(step, recipe.schedule, steps=self.steps_at(step))
        return StepSettings(
            recipe.optim.learning_rate * ratio,
            recipe.train.max_grad_norm,
            micro if isinstance(micro, int) else self._samples(recipe),
            self._samples(recipe) * recipe.train.devices,
            recipe.train.activation_checkpointing,
        )

    def recipe_at(self, step: int) -> Recipe:
        """The recipe of the step that follows `step` others."""
        return self._stretches[bisect_right(self._dates, step)][0]

    def steps_at(self, step: int) -> int:
        """The steps of the whole run, as they are planned when `step` are done."""
        return self._stretches[bisect_right(self._dates, step)][1]

    @property
    def planned_steps(self) -> int:
        """The steps of the whole run with every change."""
        return self._stretches[-1][1]

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
        return next((date for date in self._dates if date > step), self.steps_at(step))

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
    def _stretches(self) -> list[tuple[Recipe, int]]:
        """The recipe and the steps of the run as given, and as they are from each date on."""
        stretches = [(self.recipe, self.steps)]
        for date, changes in groupby(self.changes, key=lambda change: change.step):
            stretches.append(self._apply(*stretches[-1], date, list(changes)))
        return stretches

    def _samples(self, recipe: Recipe) -> int:
        """Samples of a rank in a step under the recipe of a date."""
        train = self.recipe.train  # whose micro-batches the accumulation counts
        if recipe.train.global_batch_size is not None:
            return recipe.train.global_batch_size // train.devices
        assert isinstance(train.micro_batch_size, int) and train.accumulation is not None
        return train.micro_batch_size * train.accumulation

    def _apply(self, recipe: Recipe, steps: int, date: int, changes: list[Change]) -> tuple[Recipe, int]:
        """The recipe and the steps of the run with the changes of one date, which are checked together."""
        where = Locator("", f"change at step {date:,}", {})
        values = {change.key: change.value for change in changes if change.key != SKIP}
        total = values.get(STEPS, steps)
        samples = [self._samples(recipe)]  # that a rank has in a step: before, and with each smaller batch
        problems: list[str] = []
        for change in changes:
            problems += self._problems(change, where, samples, total)
            if change.key == _BATCH and not problems:
                samples.append(change.value // self.recipe.train.devices)
        if problems:
            raise RecipeError(problems)
        values |= {_INSTEAD[key]: None for key in values.keys() & _INSTEAD if values[key] is not None}
        checked = recipe_from(change_values(recipe.to_dict(), values), where)
        if checked.schedule.warmup_steps >= total:
            name = where.name(("schedule", "warmup_steps"))
            warmup = checked.schedule.warmup_steps
            raise RecipeError([f"{name} is {warmup:,}; it must be below the {total:,} steps of the run"])
        if total != steps and (why := _why_not_as_long(recipe, steps, checked, total, date)):
            raise RecipeError([f"{where.name(tuple(STEPS.split('.')))} cannot be {total:,}: {why}"])
        return checked, total

    def _problems(self, change: Change, where: Locator, samples: list[int], total: Any) -> Iterable[str]:
        """Problems of a change that the checks of a recipe do not find."""
        name, value = where.name(tuple(shorten(change.key, 60).split("."))), change.value
        is_whole, shown = type(value) is int and value > 0, shorten(toml_text(value), 40)
        batch = samples[-1] * self.recipe.train.devices
        if change.key not in KEYS:
            yield self._why_unchangeable(change)
        elif change.key == STEPS and not (is_whole and value > change.step):
            yield f"{name} is {shown}; it must be a whole number above the {plural(change.step, 'step')} done"
        elif type(total) is int and not 0 <= change.step < total:
            yield f"{name} must come after 0 to {total - 1:,} steps"
        elif change.key == SKIP and not (is_whole and value <= _MOST_SKIPPED):
            yield f"{name} is {shown}; it must be a whole number above 0; try 1"
        elif change.key == _MICRO and not (is_whole and any(each % value == 0 for each in samples)):
            yield f"{name} is {shown}; it must divide the {samples[-1]:,} samples that a rank has in a step"
        elif change.key == _BATCH and not (is_whole and batch % value == 0 and value < batch):
            yield f"{name} is {shown}; it must be a smaller part of {batch:,}, as {max(batch // 2, 1):,} is"

    def _why_unchangeable(self, change: Change) -> str:
        epochs = self.recipe.train.epochs
        if change.key == "train.epochs" and epochs and type(change.value) is int and change.value > 0:
            steps = change.value * (self.steps // epochs)
            return f"train.epochs cannot be changed while a run goes on; {STEPS} = {steps} is as long"
        return why_unchangeable(change.key)


def why_unchangeable(key: str, name: str = "RUN") -> str:
    """The reason why a key is none that `set` takes, with the way to a run that has another value of it.

    name: of the run, as a command takes it
    """
    shown = shorten(key, 80)
    if advice := advise_unknown(key):
        return f"{shown} is not a key of a recipe; {advice}"
    if key in FORK_KEYS:
        way = f"etude fork {name} {shown}=VALUE goes on with it in a run of its own"
    elif is_beside(key):
        way = f"etude stop {name}, then etude train RECIPE {shown}=VALUE goes on with it"
    else:
        fresh = f"etude train RECIPE {shown}=VALUE --from {name}@last begins a new run with its weights"
        way = f"{fresh}; {CHANGEABLE} can"
    return f"{shown} cannot be changed while a run goes on; {way}"


def _why_not_as_long(before: Recipe, its_steps: int, after: Recipe, steps: int, date: int) -> str:
    """The reason why a run cannot have another number of steps from a date on; empty where it can."""
    kind = after.schedule.kind
    if kind not in ("constant", "wsd"):
        return (
            f'under schedule.kind = "{kind}" the number of steps sets the learning rate of each; set '
            'schedule.kind = "constant" or "wsd" first, or train anew'
        )
    if before.schedule.kind == "wsd" and date > (begun := flat_until(before.schedule, its_steps)):
        return f"the decay of the learning rate began after step {begun:,}"
    if date > (begun := flat_until(after.schedule, steps)):
        return f"the decay of the learning rate would have begun after step {begun:,}; give more steps"
    return ""

"""The work that trials share, exactly: a trial goes on from another one as far as their plans are the same.

Source: the stage trees of Hippo (VLDB 2022), for horizons and schedules, where the sharing is bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from etude.recipe.load import diff, flatten, values_hash, with_changes
from etude.recipe.schedule import HORIZON, shared_steps
from etude.recipe.schema import Recipe
from etude.sweep.grid import Trial

_WORTH = 0.05  # of the steps of a trial, below which a fork costs more than it saves
_SHORT_RUN = 100  # steps, up to which a run logs each
_OFFERS: tuple[dict[str, Any], ...] = ({"schedule.kind": "constant"}, {"schedule.kind": "wsd"})
_DEFAULTS = {"schedule.decay_ratio": 0.2}  # which every kind takes


@dataclass(frozen=True)
class Planned:
    """A trial and its length."""

    trial: Trial
    steps: int
    steps_per_epoch: int

    @property
    def recipe(self) -> Recipe:
        """The recipe of the trial."""
        return self.trial.recipe

    @property
    def rungs(self) -> list[int]:
        """The steps that it pauses at, where only the best trials go on."""
        return self.trial.rungs(self.steps_per_epoch)


@dataclass(frozen=True)
class Stage:
    """A trial as it is made: alone, or from a step of another on.

    parent  name of the trial that it goes on from; None for one that begins by itself
    fork    steps that it takes over from there
    """

    planned: Planned
    parent: str | None = None
    fork: int = 0

    @property
    def name(self) -> str:
        """The name of its trial."""
        return self.planned.trial.name

    @property
    def own_steps(self) -> int:
        """Steps that are made for this trial alone, or first."""
        return self.planned.steps - self.fork


@dataclass(frozen=True)
class Reason:
    """A key that keeps trials from sharing more steps, with the trials that it concerns, in groups."""

    key: str
    text: str
    groups: int


@dataclass(frozen=True)
class Offer:
    """Another schedule under which trials would share more; results are then of that schedule."""

    changes: Mapping[str, Any]
    epochs: float


@dataclass(frozen=True)
class Tree:
    """The stages of a sweep, each after the one that it goes on from."""

    stages: tuple[Stage, ...]

    @property
    def trunks(self) -> list[Stage]:
        """Stages that begin by themselves."""
        return [stage for stage in self.stages if stage.parent is None]

    @cached_property
    def epochs_alone(self) -> float:
        """Epochs of all trials, each trained alone."""
        return sum(stage.planned.steps / stage.planned.steps_per_epoch for stage in self.stages)

    @cached_property
    def epochs(self) -> float:
        """Epochs that are trained."""
        return sum(stage.own_steps / stage.planned.steps_per_epoch for stage in self.stages)

    @property
    def steps_alone(self) -> int:
        """Steps of all trials, each trained alone."""
        return sum(stage.planned.steps for stage in self.stages)

    @property
    def steps(self) -> int:
        """Steps that are trained."""
        return sum(stage.own_steps for stage in self.stages)

    def children(self, name: str) -> list[Stage]:
        """The stages that go on from a trial, by the step where they leave it."""
        return sorted((stage for stage in self.stages if stage.parent == name), key=lambda stage: stage.fork)


def build_tree(trials: Sequence[Planned]) -> Tree:
    """The tree in which every step that trials have in common is made once.

    The longest trial of a group begins by itself; each other goes on from the one with which it has most
    steps in common. The steps made are the nodes of the trie of all plans, the least that there can be.
    """
    groups: dict[str, list[Planned]] = {}
    for planned in trials:
        groups.setdefault(_group(planned), []).append(planned)
    stages: list[Stage] = []
    for group in groups.values():
        made: list[Planned] = []
        for planned in sorted(group, key=lambda each: -each.steps):
            shared = [(_same_rates(planned, other), other) for other in made]
            most, parent = max(shared, key=lambda each: each[0], default=(0, None))
            if parent is None or most < _WORTH * planned.steps:
                stages.append(Stage(planned))
            else:
                stages.append(Stage(planned, parent.trial.name, most))
            made.append(planned)
    return Tree(tuple(stages))


def shared_until(one: Planned, other: Planned) -> int:
    """The number of first steps that two trials have in common, bit for bit."""
    if _group(one) != _group(other) or one.trial.name == other.trial.name:
        return 0
    return _same_rates(one, other)


def why_apart(one: Planned, other: Planned) -> str | None:
    """The key by which two trials part before the shorter one ends, and the reason; None if they do not."""
    if keys := [key for key in diff(one.recipe, other.recipe) if key not in HORIZON]:
        return f"{keys[0]} differs, so they part at the first step"
    for key, text in _obstacles(one):
        return f"{key}: {text}"
    if _log_every(one) != _log_every(other):
        return "records.log_every_steps: runs of up to 100 steps log each; set it, and they share"
    if shared_until(one, other) == min(one.steps, other.steps):
        return None
    if one.recipe.schedule.warmup_steps != other.recipe.schedule.warmup_steps:
        return "schedule.warmup_steps differs, so they part at the first step"
    kinds = {each.recipe.schedule.kind for each in (one, other)}
    kind = next((kind for kind in ("linear", "cosine") if kind in kinds), None)
    if kind is None:
        return "schedule.kind: wsd falls over the last part of each trial, which is its own"
    return f"schedule.kind: {kind} falls to the end of each trial from its warm-up on"


def reasons(trials: Sequence[Planned]) -> list[Reason]:
    """The keys that keep trials of different lengths, alike in all else, from sharing more."""
    found: dict[str, int] = {}
    for group in _alike(trials):
        first, *others = sorted(group, key=lambda each: -each.steps)
        for text in dict.fromkeys(text for other in others if (text := why_apart(first, other))):
            found[text] = found.get(text, 0) + 1
    return [Reason(text.partition(":")[0].split(" ")[0], text, count) for text, count in found.items()]


def offers(trials: Sequence[Planned]) -> list[Offer]:
    """Other schedules for all trials that would need fewer epochs than the ones they have."""
    if not reasons(trials):
        return []
    now, found = build_tree(trials).epochs, []
    for changes in _OFFERS:
        changed = [
            replace(each, trial=replace(each.trial, recipe=with_changes(each.recipe, _DEFAULTS | changes)))
            for each in trials
        ]
        if (epochs := build_tree(changed).epochs) < now:
            found.append(Offer(changes, epochs))
    return found


def _alike(trials: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Groups of several trials that differ in their horizon alone."""
    groups: dict[str, list[Planned]] = {}
    for planned in trials:
        groups.setdefault(_identity(planned.recipe), []).append(planned)
    yield from (group for group in groups.values() if len(group) > 1)


def _same_rates(one: Planned, other: Planned) -> int:
    return shared_steps(one.recipe.schedule, one.steps, other.recipe.schedule, other.steps)


def _group(planned: Planned) -> str:
    """A text that is the same for trials that may share steps."""
    blocked = planned.trial.name if any(_obstacles(planned)) else ""
    return f"{_identity(planned.recipe)} {_log_every(planned)} {blocked}"


def _identity(recipe: Recipe) -> str:
    """A hash of a recipe without its horizon."""
    values = flatten(recipe.to_dict())
    return values_hash({key: value for key, value in values.items() if key not in HORIZON})


def _log_every(planned: Planned) -> int:
    given = planned.recipe.records.log_every_steps
    return given or (1 if planned.steps <= _SHORT_RUN else 10)


def _obstacles(planned: Planned) -> Iterator[tuple[str, str]]:
    """Keys of a recipe by which even its first steps, or their records, depend on where it ends or saves."""
    recipe = planned.recipe
    if recipe.data.validation == "none":
        yield "data.validation", "without it the best is judged at checkpoints, and a fork is one more"
    if recipe.watch.policy in ("stop", "recover"):
        yield "watch.policy", "what it acts on may depend on the length of a trial; warn lets them share"
    if recipe.criteria:
        yield "criteria", "they are judged by the planned steps"
    if planned.trial.halving:
        yield "halving", "a trial may end at a rung, so each is trained alone"
    if planned.trial.study:
        yield "search", "a trial that a search chose may be there before another, so it is trained alone"
    if recipe.train.devices > 1:
        yield "train.devices", "trials of several devices are trained alone"

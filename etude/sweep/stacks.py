"""Trials that are trained in one process, with one pass of the frozen base for all: LoRA on the same batches.

They differ only in what each has for itself: the adapter's rank and alpha, optimizer, schedule, length,
evaluation, records. What the tree shares is exact to the bit; these are equal within roundings, so a sweep
asks for them by `resources.stack`.
"""

from collections.abc import Collection, Mapping, Sequence

from etude.recipe.load import diff, flatten, values_hash
from etude.recipe.schema import Recipe
from etude.sweep.dispatch import Device
from etude.sweep.folder import TrialState
from etude.sweep.grid import Sweep
from etude.sweep.measure import Measured
from etude.sweep.tree import Stage, Tree
from etude.text import plural

# Keys that each trial of a stack has for itself.
_OWN = (
    "name", "adapter.rank", "adapter.alpha", "adapter.rank_stabilized", "train.steps", "train.epochs",
    "train.max_grad_norm",
)  # fmt: skip
_OWN_SECTIONS = ("optim.", "schedule.", "evaluate.", "checkpoint.", "records.", "watch.", "loss.", "criteria")


def build_stacks(
    tree: Tree, measured: Measured, *, memory_bytes: int | None = None, done: Collection[str] = ()
) -> list[list[str]]:
    """Trials that are trained together, by name; the first of each names its process.

    memory_bytes: of a device, which the trials of a stack fit into as if each were there alone. done: trials
    that need nothing more.
    """
    groups: dict[str, list[str]] = {}
    for stage in tree.stages:
        if stage.name not in done and why_alone(stage, tree, measured) is None:
            groups.setdefault(_identity(stage.planned.recipe), []).append(stage.name)
    stacks: list[list[str]] = []
    for names in groups.values():
        most = max((measured.memory.get(name, 0) for name in names), default=0)
        at_once = len(names) if not most or memory_bytes is None else max(memory_bytes // most, 1)
        stacks += [names[low : low + at_once] for low in range(0, len(names), at_once)]
    return [names for names in stacks if len(names) > 1]


def find_leads(
    tree: Tree, measured: Measured, devices: Sequence[Device], states: Mapping[str, TrialState]
) -> dict[str, str]:
    """The first trial of its stack, which names the process, for each trial but those first ones."""
    done = [name for name, state in states.items() if state.is_finished]
    limits = [device.memory_bytes for device in devices if device.memory_bytes]
    stacks = build_stacks(tree, measured, memory_bytes=min(limits, default=None), done=done)
    return {name: lead for lead, *others in stacks for name in others}


def why_alone(stage: Stage, tree: Tree, measured: Measured) -> str | None:
    """The key by which a trial can be in no stack, and the reason; None if it can."""
    recipe = stage.planned.recipe
    if stage.planned.trial.study:
        return "search: the values of its trials are chosen one after another"
    if stage.planned.trial.halving:
        return "halving: trials that pause at rungs are trained alone"
    if recipe.adapter is None:
        return "adapter: without one there is no frozen base"
    if stage.parent is not None or tree.children(stage.name):
        return "train.epochs: trials that share their first steps are trained by forks"
    if recipe.model.quantize is not None:
        return "model.quantize: a base of 4 bits is not stacked"
    if recipe.train.compile:
        return "train.compile: a compiled model is not stacked"
    if recipe.train.devices > 1:
        return "train.devices: trials of several devices are trained alone"
    if recipe.tasks:
        return "tasks: trials of several tasks are trained alone"
    if stage.name not in measured.stackable:
        return "model.from: only decoders that etude computes itself are stacked"
    return None


def stack_notes(sweep: Sweep, tree: Tree, measured: Measured) -> list[str]:
    """Sentences on the stacks that a sweep has or could have, and on what keeps trials out of them."""
    adapted = [stage for stage in tree.stages if stage.planned.recipe.adapter is not None]
    alone = {stage.name: why_alone(stage, tree, measured) for stage in adapted}
    stacks, lines = build_stacks(tree, measured), list[str]()
    if stacks:
        sizes = ", ".join(f"{len(names):,}" for names in stacks)
        what = f"{plural(len(stacks), 'stack')} of {sizes} trials, each with one pass of its frozen base"
        is_on = sweep.file.resources.stack
        lines.append(
            what if is_on else f"a choice: resources.stack = true makes {what}, equal within roundings"
        )
    reasons = {f"not in a stack: {why}": None for why in alone.values() if why}
    free = [stage.planned.recipe for stage in adapted if alone[stage.name] is None]
    for recipe in free:
        if keys := [key for key in diff(free[0], recipe) if not _is_own(key)]:
            reasons[f"not in one stack: {keys[0]} differs"] = None
    return [*lines, *reasons]


def _identity(recipe: Recipe) -> str:
    """A hash of what all trials of a stack have in common."""
    values = flatten(recipe.to_dict())
    return values_hash({key: value for key, value in values.items() if not _is_own(key)})


def _is_own(key: str) -> bool:
    return key in _OWN or key.startswith(_OWN_SECTIONS)

"""The course that an attempt begins with."""

from collections.abc import Callable
from dataclasses import asdict, replace

from etude.engine.loop import TrainState
from etude.engine.world import World
from etude.plan import Plan
from etude.recipe.course import Change, Course
from etude.records import events
from etude.records.changes import changes_of
from etude.records.store import Run


def sized_course(run: Run, plan: Plan, state: TrainState, find_size: Callable[[], int]) -> Course:
    """The course with the log lines of the plan, and its micro-batches: those that an earlier attempt found,
    or that `find_size` finds by trying.
    """
    size = plan.micro_batch_size
    if size is None and (run.path / "environment.json").exists():
        found = int(run.environment["micro_batch_size"])  # perhaps on another number of ranks
        size = found if plan.global_batch_size // plan.recipe.train.devices % found == 0 else None
    size = size or find_size()
    parts = {
        "train": plan.recipe.train.model_copy(update={"micro_batch_size": size}),
        "records": plan.recipe.records.model_copy(update={"log_every_steps": plan.log_every_steps}),
    }
    return replace(state.course, recipe=plan.recipe.model_copy(update=parts))


def take_lost_changes(run: Run, state: TrainState, world: World) -> list[events.Control]:
    """Take over the changes of the journal that a checkpoint lacks; returns the records that would be void.

    They were in later checkpoints, which are gone. A checkpoint with a change that the journal lacks was
    saved last, by a run that went back to it, and there the changes of the journal are void.
    """
    recorded = {
        (change.request, change.step, change.key, repr(change.value)): (control, change)
        for control in (entry.event for entry in (run.ledger().entries if world.is_main else ()))
        if isinstance(control, events.Control)
        for change in changes_of(control)
    }
    unknown, lost = [(each.step, each.key, each.value) for each in state.course.changes], []
    for control, change in recorded.values():
        if (found := (change.step, change.key, change.value)) in unknown:
            unknown.remove(found)
        else:
            lost.append((control, change))
    lost = [] if unknown else lost
    taken = world.agree([asdict(change) for _, change in lost])
    state.course = state.course.with_changes(Change(**each) for each in taken)
    return [
        replace(control, step=state.step, action="change", changes={change.key: change.value})
        for control, change in lost
        if control.step > state.step
    ]

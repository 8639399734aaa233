"""The clerk of a run: what it can be asked for, and after which step it acts."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace

from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, Request
from etude.engine.loop import TrainState
from etude.engine.world import World
from etude.errors import InputError
from etude.plan import Plan
from etude.recipe.course import KEYS, Change
from etude.records import events
from etude.records.changes import changes_of
from etude.records.folder import as_argument
from etude.records.store import Run, RunWriter

_AT_END = ("stop", "pause")  # which the end of a run can still be asked for: it may score for long


def open_clerk(
    plan: Plan, state: TrainState, writer: RunWriter, stack: contextlib.ExitStack, *, own_model: bool
) -> Clerk:
    """The clerk of a run whose folder this process holds; it answers from now on until the stack closes."""
    run = writer.run
    entries = run.ledger().all
    known = {each.event.request for each in entries if isinstance(each.event, events.Control)}
    clerk = Clerk(
        mailbox=Mailbox(run.path / FILE, frozenset(filter(None, known))),
        attempt=writer.attempt,
        check=_checks(plan, state, as_argument(run.path), own_model=own_model),
        step=lambda: state.step,
        edge=lambda: _edge(plan, state.step),
        tell=writer.append,
    )
    clerk.start()
    stack.callback(clerk.close)
    return clerk


def void_stale(clerk: Clerk, state: TrainState, writer: RunWriter) -> None:
    """Answer the requests that earlier attempts left open; a change in the checkpoint was made."""
    entries = [each.event for each in writer.run.ledger().all]
    done = [each.request for each in entries if isinstance(each, events.Control) and each.action != "accept"]
    clerk.void_stale({*filter(None, done), *(each.request for each in state.course.changes if each.request)})


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


def _checks(plan: Plan, state: TrainState, name: str, *, own_model: bool) -> Callable[[Request], None]:
    writes_text = not own_model and any(
        task.kind.writes_text and not task.recipe.kind.has_labels for task in plan.tasks
    )

    def check(request: Request) -> None:
        """Raises: InputError if the run cannot do what is asked of it."""
        if state.step >= plan.steps and request.action not in _AT_END:
            raise InputError("the last step is done")
        if request.action == "set":
            assert request.key is not None
            try:
                change = Change(min(state.step, plan.steps - 1), request.key, request.value)
                state.course.with_changes([change])
            except InputError as error:
                fork = "" if request.key in KEYS else f"; etude fork {name} {request.key}=VALUE can"
                raise InputError(f"{str(error).splitlines()[0]}{fork}") from None
        elif request.action == "evaluate" and not plan.is_validated:
            raise InputError("it has no validation samples")
        elif request.action == "generate" and not writes_text:
            raise InputError("its model writes no text")

    return check


def _edge(plan: Plan, step: int) -> int:
    """The step after which a run can act next: of several ranks a log step, as they agree there."""
    every = 1 if plan.recipe.train.devices == 1 else plan.log_every_steps
    return min((step // every + 1) * every, plan.steps)

"""The clerk of a run: what it can be asked for, and after which step it acts."""

import contextlib
from collections.abc import Callable

from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, Request
from etude.engine.loop import TrainState
from etude.errors import InputError
from etude.plan import Plan
from etude.recipe.course import Change
from etude.records import events
from etude.records.store import RunWriter

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
        check=_checks(plan, state, own_model=own_model),
        step=lambda: state.step,
        edge=lambda: _edge(state),
        tell=writer.append,
    )
    clerk.start()
    stack.callback(clerk.close)
    return clerk


def void_stale(clerk: Clerk, state: TrainState, writer: RunWriter) -> None:
    """Answer the requests that earlier attempts left open; a change in the checkpoint was made."""
    answers = [each.event for each in writer.run.ledger().all if isinstance(each.event, events.Control)]
    done = [each.request for each in answers if each.action != events.ACCEPT]
    clerk.void_stale({*filter(None, done), *(each.request for each in state.course.changes if each.request)})


def _checks(plan: Plan, state: TrainState, *, own_model: bool) -> Callable[[Request], None]:
    writes_text = not own_model and any(
        task.kind.writes_text and not task.recipe.kind.has_labels for task in plan.tasks
    )

    def check(request: Request) -> None:
        """Raises: InputError if the run cannot do what is asked of it."""
        if state.is_done and request.action not in _AT_END:
            raise InputError("the last step is done")
        if request.action == "set":
            assert request.key is not None
            try:
                last = state.course.steps_at(state.step) - 1
                change = Change(min(state.step, last), request.key, request.value)
                state.course.with_changes([change])
            except InputError as error:
                raise InputError(str(error).splitlines()[0]) from None
        elif request.action == "evaluate" and not plan.is_validated:
            raise InputError("it has no validation samples")
        elif request.action == "generate" and not writes_text:
            raise InputError("its model writes no text")

    return check


def _edge(state: TrainState) -> int:
    """The step after which a run can act next: of several ranks a log step, as they agree there."""
    recipe = state.course.recipe_at(state.step)
    every = 1 if recipe.train.devices == 1 else recipe.records.log_every_steps or 1
    return min((state.step // every + 1) * every, state.course.steps_at(state.step))

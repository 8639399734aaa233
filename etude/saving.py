"""Saving a run, and the changes of its course."""

from etude.assemble import model_files
from etude.engine.checkpoint import Progress, Snapshot, remove_unfinished, take_snapshot
from etude.errors import EtudeError
from etude.plan.length import ONE_TOO_MANY
from etude.recipe.course import Change
from etude.records import events
from etude.records.folder import checkpoint_name
from etude.session import Session


def save(session: Session, *, evaluated: bool = True, again: bool = False) -> None:
    """Save this step, unless that is done; without validation the best is judged here, by training loss."""
    state, plan, judge = session.state, session.plan, session.judge
    is_saved = session.keeper.saved_step == state.step
    if is_saved and not again:
        return
    session.recorder.drain()
    if not plan.is_validated and not is_saved:
        judge.judge(session.recorder.loss_since_save(), state.step, metric="training loss")
    progress = Progress(
        run=session.run.info["id"],
        step=state.step,
        data_fingerprint=plan.fingerprint,
        precision=state.precision.state(),
        best=judge.best,
        evaluations_without_improvement=judge.evaluations_without_improvement,
        evaluated=evaluated,
        base=plan.pretrained.digest if plan.pretrained and session.recipe.adapter else None,
        changes=state.course.changes,
    )
    session.recorder.sync()
    session.keeper.note(state.step)
    if session.world.is_main:
        session.keeper.save(lambda: _take(session, progress))


def _take(session: Session, progress: Progress) -> Snapshot:
    """Take a snapshot of a run, and hold it against the weights."""
    snapshot = take_snapshot(session.state, progress, model_files(session.plan, session.state.model))
    session.recorder.write(*session.invariants.compare(snapshot))
    return snapshot


def begin_course(session: Session) -> None:
    """Save the changes that a run starts with, and record those that a kill kept from the journal."""
    changes = session.state.course.changes
    is_to_go_back = session.recipe.watch.policy == "recover"  # to the start, where there is nothing later
    if (changes or is_to_go_back) and session.state.step == 0:
        save(session, again=True)
        session.keeper.collect(wait=True)
    if changes and session.world.is_main:
        entries = [entry.event for entry in session.run.ledger().entries]
        known = [(each.from_step, each.changes) for each in entries if isinstance(each, events.Control)]
        for change in changes:
            if (change.step, {change.key: change.value}) not in known:
                _record(session, change)


def change_course(session: Session, change: Change, request: str | None = None) -> None:
    """Change the course after this step, and save it at once: no kill leaves a change half made."""
    session.state.course = session.state.course.with_changes([change])
    save(session, again=True)
    session.keeper.collect(wait=True)
    _record(session, change, request)
    session.world.wait()


def go_back(session: Session, change: Change, request: str | None = None) -> None:
    """Go on from the checkpoint of an earlier step with a change; what came after it is void, as at a resume.

    A run that is killed before that checkpoint holds the change goes on as if nobody had asked; the steps
    whose checkpoints are gone by then are done again, with the same bits.
    """
    session.recorder.drain()
    session.keeper.collect(wait=True)
    path = session.run.checkpoints / checkpoint_name(change.step)
    session.restore(path)
    session.recorder.forget()
    session.examiner.forget()
    if session.guard:
        session.guard.rewind(change.step)
    session.world.wait()  # all ranks have read it
    if session.world.is_main:
        remove_unfinished(session.run.checkpoints, beyond=change.step)
    session.state.course = session.state.course.with_changes([change])
    save(session, evaluated=not session.is_evaluation_owed, again=True)
    session.keeper.collect(wait=True)
    session.start_attempt(path)
    _record(session, change, request, action="back")
    session.world.wait()


def _record(session: Session, change: Change, request: str | None = None, action: str = "change") -> None:
    values, reason = {change.key: change.value}, f"{change.key} is {change.value} after step {change.step:,}"
    reason += f": {change.reason}" if change.reason else ""
    session.recorder.write(events.Control(session.state.step, action, reason, request, values, change.step))
    session.recorder.sync()


def make_room(session: Session) -> None:
    """Halve the micro-batches after a step that did not fit into memory.

    Raises: EtudeError if they have one sample.
    """
    reason = f"step {session.state.step + 1:,} did not fit into memory"
    change = session.state.course.halve(session.state.step, reason)
    if change is None:
        raise EtudeError(ONE_TOO_MANY)
    change_course(session, change)

"""Saving a run, and the changes of its course."""

from etude.assemble import model_files
from etude.engine.checkpoint import (
    Progress,
    Snapshot,
    begin_checkpoint,
    load_weights,
    remove_unfinished,
    take_snapshot,
    weights_file,
)
from etude.engine.out_of_memory import SMALLER, capacity, room_for
from etude.errors import FaultError, LostRankError, ShortageError
from etude.models.layers import can_recompute
from etude.plan.fit import find_fit
from etude.plan.memory import is_traceable, memory_of
from etude.recipe.course import RECOMPUTE, Change
from etude.recipe.toml import toml_text
from etude.records import events
from etude.records.folder import checkpoint_name
from etude.run_watch import REQUEST
from etude.session import Session
from etude.text import rough_size


def save(session: Session, *, again: bool = False, asked: bool = False) -> None:
    """Save this step, unless that is done; without validation the best is judged here, by training loss.

    asked: by a person, and not due: nothing is judged, so that the run goes on as if it had not been
    """
    state, plan, judge = session.state, session.plan, session.judge
    is_saved = session.keeper.saved_step == state.step
    if is_saved and not again:
        return
    session.recorder.drain()
    if not plan.is_validated and not is_saved and not again and not asked:
        judge.judge(session.recorder.loss_since_save(), state.step, metric="training loss")
    progress = Progress(
        run=session.run.info["id"],
        step=state.step,
        data_fingerprint=plan.fingerprint,
        precision=state.precision.state(),
        best=judge.best,
        evaluations_without_improvement=judge.evaluations_without_improvement,
        counted=judge.counted,
        evaluated=not session.is_evaluation_owed,
        base=plan.pretrained.digest if plan.pretrained and session.recipe.adapter else None,
        changes=state.course.changes,
    )
    session.recorder.sync()
    session.keeper.note(state.step)
    if session.world.is_main or state.shards:
        session.keeper.save(lambda: _take(session, progress))


def _take(session: Session, progress: Progress) -> Snapshot:
    """Take a snapshot of a run, and hold it against the weights; of shards on all ranks together."""
    state, is_main = session.state, session.world.is_main
    files = model_files(session.plan, state.model) if is_main else {}
    snapshot = take_snapshot(state, progress, files, session.recorder.head())
    session.recorder.write(*session.invariants.compare(snapshot))
    if state.shards:
        if is_main:
            begin_checkpoint(session.run.checkpoints, snapshot)
        session.world.wait()
    return snapshot


def take_best(session: Session) -> int:
    """Take over the best weights, where they are to be scored; returns their step."""
    state, best = session.state, session.judge.best_step
    if best is None or best == state.step or not session.examiner.compared():
        return state.step
    path = weights_file(session.run.checkpoints / checkpoint_name(best))
    load_weights(path, state.model, state.shards)
    return best


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
                _record(session, change, "back" if change.request == REQUEST else "change")


def change_course(session: Session, change: Change) -> None:
    """Change the course after this step, and save it at once: no kill leaves a change half made."""
    session.state.course = session.state.course.with_changes([change])
    save(session, again=True)
    session.keeper.collect(wait=True)
    _record(session, change)
    if session.replan() and session.pace.is_known:
        session.recorder.write(session.pace.forecast(session.recorder.memory()))
    session.world.wait()


def go_back(session: Session, change: Change) -> None:
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
    if session.watch:
        session.watch.rewind(change.step)
    session.world.wait()  # all ranks have read it
    if session.world.is_main:
        remove_unfinished(session.run.checkpoints, beyond=change.step)
    session.state.course = session.state.course.with_changes([change])
    save(session, again=True)
    session.keeper.collect(wait=True)
    session.replan()
    session.start_attempt(path)
    _record(session, change, "back")
    session.world.wait()


def _record(session: Session, change: Change, action: str = "change") -> None:
    reason = f"{change.key} is {change.value} after step {change.step:,}"
    reason += f": {change.reason}" if change.reason else ""
    control = events.Control(
        session.state.step, action, reason, change.request, {change.key: change.value}, change.step,
        before={change.key: session.state.course.before(change)}, who=change.who, channel=change.channel,
    )  # fmt: skip
    session.recorder.write(control)
    session.recorder.sync()


def make_room(session: Session, shortage: str | None = "a micro-batch") -> None:
    """Change the course before a step that a rank had no memory for, as train.on_oom says.

    The journal holds the change, and a run that goes on takes it from there: no checkpoint is needed.
    Raises: FaultError with what was tried and what may fit.
    """
    state, wanted = session.state, session.recipe.train.on_oom
    reason = f"step {state.step + 1:,} ran out of memory for {shortage}"
    changes: list[Change] = []
    if wanted != "stop":
        changes = state.course.halve(state.step, reason, keep_batch=wanted == "keep_batch")
        if not changes and not state.course.at(state.step).recompute and can_recompute(state.model):
            changes = [Change(state.step, RECOMPUTE, True, reason)]
    if not changes:
        raise FaultError(f"{reason}; {_what_fits(session)}")
    before = state.course.at(state.step).global_batch_size
    state.course = state.course.with_changes(changes)
    for change in changes:
        _record(session, change)
    if (batch := state.course.at(state.step).global_batch_size) != before:
        evidence = f"{before:,} samples a step until step {state.step:,}, {batch:,} from then on: {reason}"
        advice = (
            "the run has as many steps and sees fewer samples, and its steps are noisier; "
            'train.on_oom = "keep_batch" leaves the batch as it is'
        )
        finding = events.Finding(state.step, "the batch became smaller", evidence, advice, severity="warning")
        session.recorder.write(finding)
        session.recorder.sync()


def make_room_for_next(session: Session, error: Exception) -> Exception:
    """Change the course for the ranks that are started again, if one ended the others for lack of memory.

    Returns the error, or that of a course that cannot be changed.
    """
    is_short = isinstance(error, ShortageError) or session.world.has_shortage()
    if not (is_short and session.world.is_main and isinstance(error, ShortageError | LostRankError)):
        return error
    try:
        make_room(session)
    except FaultError as final:
        return final
    return error


def _what_fits(session: Session) -> str:
    """Settings that were tried, bytes that are needed in any case, and settings that may fit."""
    state, recipe = session.state, session.recipe.train
    settings = state.course.at(state.step)
    sizes = [state.course.at(0).micro_batch_size, settings.micro_batch_size]
    sizes += [int(change.value) for change in state.course.changes if change.key == "train.micro_batch_size"]
    tried = f"micro-batches of {', '.join(f'{size:,}' for size in sorted(set(sizes), reverse=True))}"
    tried += " with activation_checkpointing" if settings.recompute else ""
    trained = sum(each.nbytes for each in state.optimizer.parameters)
    needed = sum(each.nbytes for each in state.model.parameters()) + trained + state.optimizer.state_bytes
    room = capacity(session.world.device)
    said = f"weights, gradients and optimizer take {rough_size(needed)} of the {rough_size(room)} here"
    if needed > room:
        return f"tried {tried}; {said}, so it takes {SMALLER}"
    fits = [f"train.seq_len below {recipe.seq_len:,}", SMALLER]
    if traced := _fit_by_trace(session):
        fits.insert(0, traced)
    if recipe.on_oom == "stop":
        fits = ['train.on_oom = "keep_batch" (smaller micro-batches)', *fits]
    elif not settings.recompute and not can_recompute(state.model):
        said += ", and this model cannot compute activations again"
    return f"tried {tried}; {said}; what may fit: {', or '.join(fits)}"


def _fit_by_trace(session: Session) -> str:
    """The least that has to change for a step to fit, by its trace; empty where none is found."""
    plan, device, settings = session.plan, session.world.device, session.state.course.at(session.state.step)
    if not is_traceable(plan):
        return ""
    weights = sum(each.nbytes for each in session.state.model.parameters())
    per_rank = settings.global_batch_size // session.world.size
    train = {"activation_checkpointing": settings.recompute}
    recipe = session.recipe.model_copy(update={"train": session.recipe.train.model_copy(update=train)})
    try:
        fit = find_fit(
            recipe,
            lambda changed, size: memory_of(plan, size, changed),
            settings.micro_batch_size,
            per_rank,
            room_for(device, weights),
        )
    except Exception:  # the shortage is what has to be told
        return ""
    changes = " ".join(f"{key}={toml_text(value)}" for key, value in (fit.changes if fit else {}).items())
    return f"{changes} ({rough_size(fit.memory.device_bytes)} by a trace)" if fit and changes else ""

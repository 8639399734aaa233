"""One recipe, start to finish: `Training` iterates over the loop, and every decision of a run is a statement
there.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from etude.assemble import model_files
from etude.engine import checkpoint as checkpoints
from etude.engine.loop import Step
from etude.errors import EtudeError, LostRankError
from etude.plan.length import ONE_TOO_MANY
from etude.recipe.course import Change
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.ending import Ending
from etude.records.folder import checkpoint_name
from etude.records.store import Run
from etude.report.write import write_report
from etude.session import Session, begin
from etude.start import Options

_DEFAULT_MINUTES = 10.0


def run_recipe(recipe: Recipe, options: Options = Options()) -> "Training":  # noqa: B008 - frozen
    """Run a recipe to its end, or until it is asked to stop."""
    training = Training(recipe, options)
    for _ in training:
        pass
    return training


class Training:
    """A run that is going on: iterate to train. Breaking out saves and leaves it resumable.

    run     the run, once the first step is done
    ending  how it ended
    """

    run: Run
    ending = Ending("failed")

    def __init__(self, recipe: Recipe, options: Options = Options()) -> None:  # noqa: B008 - frozen
        self._recipe, self._options = recipe, options

    def __iter__(self) -> Iterator[Step]:
        """Train, and after each step record, evaluate, save and stop as the recipe and the signals say.

        Raises: InputError before anything is written; StorageError or FaultError while running.
        """
        with contextlib.ExitStack() as stack:
            session = begin(self._recipe, self._options, stack, lambda: self.ending)
            self.run = session.run
            try:
                _evaluate_at_start(session)
                session.world.wait()  # rank 0 wrote down how the attempt begins
                _begin_course(session)
                reason = _why_stop(session)  # the last attempt may have decided to stop already
                steps = stack.enter_context(contextlib.closing(session.steps()))
                for step in () if reason else steps:
                    if step.is_void:
                        _make_room(session)
                        continue
                    session.recorder.add(step)
                    if _is_log_step(session):
                        session.recorder.log()
                    if _is_evaluation_due(session):
                        _evaluate(session)
                    if _is_checkpoint_due(session):
                        _save(session)
                        session.world.wait()  # rank 0 alone saves, and the next step is not to wait long
                    session.keeper.collect(wait=False)
                    yield step
                    if reason := _why_stop(session):
                        break
                was_asked = session.world.any(session.signals.requested is not None)
                self.ending = _end(session, Ending("stopped" if reason and was_asked else "finished", reason))
            except GeneratorExit:
                self.ending = _end(session, Ending("stopped", "the caller stopped iterating"))
                raise
            except KeyboardInterrupt:
                self.ending = Ending("stopped", "it was interrupted")
                raise


def _evaluate_at_start(session: Session) -> None:
    """Evaluate the model before its first step, or make up for an evaluation that the last attempt did not
    reach.
    """
    plan = session.plan
    if session.state.step == 0:
        session.examiner.keep_before()
        if plan.is_validated and (plan.pretrained or session.objective.is_worth_scoring_untrained):
            _evaluate(session, before=True)
    elif session.is_evaluation_owed:
        _evaluate(session)
        if session.world.is_main:
            session.keeper.point_at(session.judge.best)


def _evaluate(session: Session, *, before: bool = False) -> None:
    """Evaluate on the validation samples and record it; a failure costs no step."""
    session.recorder.drain()
    try:
        records = session.examiner.evaluate(before=before)
    except Exception:
        _save(session, evaluated=False)
        session.keeper.collect(wait=True)
        raise
    session.recorder.write(*records)


def _save(session: Session, *, evaluated: bool = True, again: bool = False) -> None:
    """Save this step, unless that is done; without validation the best is judged here, by training loss."""
    state, plan, judge = session.state, session.plan, session.judge
    is_saved = session.keeper.saved_step == state.step
    if is_saved and not again:
        return
    session.recorder.drain()
    if not plan.is_validated and not is_saved:
        judge.judge(session.recorder.loss_since_save(), state.step, metric="training loss")
    progress = checkpoints.Progress(
        run=session.run.info["id"],
        step=state.step,
        data_fingerprint=plan.fingerprint,
        precision=state.precision.state(),
        best=judge.best,
        evaluations_without_improvement=judge.evaluations_without_improvement,
        evaluated=evaluated,
        base=plan.pretrained.digest if plan.pretrained and session.recipe.adapter else None,
        changes=[asdict(change) for change in state.course.changes],
    )
    session.recorder.sync()
    session.keeper.note(state.step)
    if session.world.is_main:
        session.keeper.save(
            lambda: checkpoints.take_snapshot(state, progress, model_files(plan, state.model))
        )


def _begin_course(session: Session) -> None:
    """Save the changes that a run starts with, and record those that a kill kept from the journal."""
    changes = session.state.course.changes
    if changes and session.state.step == 0:
        _save(session, again=True)
        session.keeper.collect(wait=True)
    if changes and session.world.is_main:
        entries = [entry.event for entry in session.run.ledger().entries]
        known = [(each.from_step, each.changes) for each in entries if isinstance(each, events.Control)]
        for change in changes:
            if (change.step, {change.key: change.value}) not in known:
                _record(session, change)


def _change(session: Session, change: Change, request: str | None = None) -> None:
    """Change the course after this step, and save it at once: no kill leaves a change half made."""
    session.state.course = session.state.course.with_changes([change])
    _save(session, again=True)
    session.keeper.collect(wait=True)
    _record(session, change, request)
    session.world.wait()


def _record(session: Session, change: Change, request: str | None = None) -> None:
    values, reason = {change.key: change.value}, f"{change.key} is {change.value} after step {change.step:,}"
    reason += f": {change.reason}" if change.reason else ""
    session.recorder.write(events.Control(session.state.step, "change", reason, request, values, change.step))
    session.recorder.sync()


def _make_room(session: Session) -> None:
    """Halve the micro-batches after a step that did not fit into memory. Raises: EtudeError if they have one
    sample.
    """
    reason = f"step {session.state.step + 1:,} did not fit into memory"
    change = session.state.course.halve(session.state.step, reason)
    if change is None:
        raise EtudeError(ONE_TOO_MANY)
    _change(session, change)


def _is_log_step(session: Session) -> bool:
    step = session.state.step
    return step % session.recipe.records.log_every_steps == 0 or step == session.plan.steps


def _is_evaluation_due(session: Session) -> bool:
    recipe, step, plan = session.recipe.evaluate, session.state.step, session.plan
    every = recipe.every_steps or (recipe.every_epochs or 1) * plan.steps_per_epoch
    return plan.is_validated and (step % every == 0 or step == plan.steps)


def _is_checkpoint_due(session: Session) -> bool:
    recipe, step = session.recipe.checkpoint, session.state.step
    if step == session.judge.best_step or step == session.plan.steps or step in recipe.keep_at:
        return True
    if recipe.every_steps is not None:
        return step % recipe.every_steps == 0
    is_late = time.monotonic() - session.keeper.saved_time > 60 * (recipe.every_minutes or _DEFAULT_MINUTES)
    return _is_common_step(session) and session.world.any(is_late)


def _is_common_step(session: Session) -> bool:
    """Whether the ranks talk about more than gradients after this step; one rank always may."""
    is_saved = session.keeper.saved_step == session.state.step
    return session.world.size == 1 or _is_log_step(session) or _is_evaluation_due(session) or is_saved


def _why_stop(session: Session) -> str | None:
    """Why to stop here, the same on every rank, or None."""
    if reason := session.judge.why_stop():
        return reason
    if session.state.step == session.plan.steps or not _is_common_step(session):
        return None
    signals = session.signals
    if session.world.any(signals.requested is not None):
        signals.requested = signals.requested or "a signal to another rank"
        return f"{signals.requested} was received"
    return None


def _end(session: Session, ending: Ending) -> Ending:
    """Save what is not yet saved, record how the run ended, and write its report."""
    recorder = session.recorder
    recorder.drain()
    _save(session)
    session.keeper.collect(wait=True)
    if not ending.is_resumable:
        session.world.wait()  # the checkpoint that rank 0 wrote is there for all
        advice = "the run is finished, without scores beside those before training and the baselines"
        _at_end(session, "comparison", lambda: _compare(session), advice)
    action, reason = ("stop", ending.reason) if ending.reason else ("finish", "the last step is done")
    recorder.write(events.Control(session.state.step, action, reason))
    recorder.sync()
    if session.world.is_main:
        _at_end(session, "report", lambda: write_report(session.run), f"try etude report {session.run.name}")
    return Ending(ending.state, ending.reason, was_asked=session.signals.requested is not None)


def _compare(session: Session) -> None:
    """Score the best weights beside those before training and the baselines, and keep every prediction."""
    step, best = session.state.step, session.judge.best_step
    if session.examiner.compared() and best is not None and best != step:
        step, path = best, session.run.checkpoints / checkpoint_name(best)
        checkpoints.load_weights(checkpoints.weights_file(path), session.state.model)
    session.recorder.write(*session.examiner.compare(step))


def _at_end(session: Session, what: str, do: Callable[[], object], advice: str) -> None:
    """Do what only describes a run whose weights are saved: its failure is recorded, and the run
    is finished."""
    try:
        do()
    except LostRankError:  # what the ranks do together is done again when the run is continued
        raise
    except Exception as error:
        evidence = f"{type(error).__name__}: {error}"
        session.recorder.write(events.Finding(session.state.step, f"{what} failed", evidence, advice))

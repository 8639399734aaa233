"""One recipe, start to finish: `Training` iterates over the loop and makes every decision of a run."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TypeVar

from etude.control.desk import Decision
from etude.engine.loop import Step
from etude.engine.out_of_memory import SMALLER, is_out_of_memory
from etude.engine.parking import park, unpark
from etude.errors import EtudeError, FaultError, InputError, LostRankError
from etude.interruption import Abandoned
from etude.notebook import notebook_view
from etude.plan.beginning import tell_at_start
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.ending import Ending, State
from etude.records.folder import as_argument, checkpoint_name
from etude.records.store import Run
from etude.records.trackers import describe
from etude.records.window import OpenWindow
from etude.report.write import write_report
from etude.saving import begin_course, change_course, go_back, make_room, make_room_for_next, save, take_best
from etude.session import Session, begin
from etude.start import Options
from etude.text import parse_duration, shorten

T = TypeVar("T")
_DEFAULT_MINUTES = 10.0
_DONE = "the last step is done"
_ACTIONS: dict[State, str] = {"finished": "finish", "stopped": "stop", "paused": "release"}


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
    _session: Session

    def __init__(self, recipe: Recipe, options: Options = Options()) -> None:  # noqa: B008 - frozen
        self._recipe = recipe
        self._options = options if options.view else replace(options, view=notebook_view())

    def __repr__(self) -> str:  # of a cell whose last line trains
        run = getattr(self, "run", None)
        return f"training of {run.name}: {run.state}" if run else f"training of {self._recipe.name}"

    def save(self) -> None:
        """Save the step that was just made, from which the run can then be forked while it goes on."""
        save(self._session)
        self._session.keeper.collect(wait=True)

    def __iter__(self) -> Generator[Step]:
        """Train, and after each step record, evaluate, save and stop as the recipe and the signals say.

        Raises: InputError before anything is written; StorageError or FaultError while running.
        """
        with contextlib.ExitStack() as stack:
            self._session = session = begin(self._recipe, self._options, stack, lambda: self.ending)
            self.run = session.run
            try:
                _evaluate_at_start(session)
                session.world.wait()  # rank 0 wrote down how the attempt begins
                begin_course(session)
                if session.writer is not None and session.state.step == 0:
                    _forecast_at_start(session)
                decision = _decide(session)  # the last attempt may have decided to stop already
                steps = stack.enter_context(contextlib.closing(session.steps()))
                for step in () if decision.kind == "stop" else steps:
                    if step.is_void:
                        make_room(session, step.shortage)
                        session.world.wait()
                        continue
                    session.recorder.add(step)
                    session.has_stepped = True
                    if session.pace.add_step(step.number, step.seconds):
                        _forecast(session)
                    if _is_log_step(session):
                        session.log(step)
                    elif session.world.size == 1:  # one of several would fail for a broken step first
                        session.recorder.drain_late()
                    if _is_evaluation_due(session):
                        is_time = not session.why_leave_before(session.pace.evaluation_seconds())
                        session.is_evaluation_owed = not (is_time and _evaluate(session))
                    if _is_checkpoint_due(session):
                        _save(session)
                        session.world.wait()  # rank 0 alone saves, and the next step is not to wait long
                    session.keeper.collect(wait=False)
                    if session.mirror:
                        session.recorder.write(*session.mirror.findings(step.number))
                    yield step
                    decision = _decide(session)
                    if decision.kind == "stop":
                        break
                self.ending = _end(session, decision)
            except GeneratorExit:
                self.ending = _end(session, Decision("stop", "the caller stopped iterating", is_asked=True))
                raise
            except KeyboardInterrupt:
                self.ending = Ending("stopped", "it was interrupted")
                raise
            except Exception as error:
                explained = make_room_for_next(session, _explain(self._options, error))
                _record_failure(session, explained)
                if explained is error:
                    raise
                raise explained from error


def _evaluate_at_start(session: Session) -> None:
    """Evaluate the model before its first step, or make up for an evaluation that a kill prevented."""
    plan = session.plan
    if session.state.step == 0:
        with contextlib.suppress(Abandoned), session.interruptible("the predictions before training"):
            session.examiner.keep_before()
        if plan.is_validated and (plan.pretrained or session.objective.is_worth_scoring_untrained):
            _evaluate(session, before=True)
    elif session.is_evaluation_owed:
        session.is_evaluation_owed = not _evaluate(session)
        if session.world.is_main and not session.is_evaluation_owed:
            session.keeper.point_at(session.judge.best)


def _evaluate(session: Session, *, before: bool = False, asked: bool = False) -> bool:
    """Evaluate on the validation samples and record it; a failure costs no step.

    Returns False if the run is asked to end, which does not wait for it.
    """
    session.recorder.drain()
    try:
        with session.interruptible("the evaluation"), session.invariants.unchanged("an evaluation"):
            records = session.examiner.evaluate(before=before, asked=asked)
    except Abandoned:
        return False
    except Exception:
        session.is_evaluation_owed |= not asked
        save(session)
        session.keeper.collect(wait=True)
        raise
    session.recorder.write(*records)
    (session.evaluated,) = [each for each in records if isinstance(each, events.Evaluation)]
    session.pace.add_evaluation(session.evaluated.seconds)
    return True


def _save(session: Session) -> None:
    started = time.perf_counter()
    save(session)
    blocking, written = time.perf_counter() - started, session.keeper.write_seconds
    session.pace.add_checkpoint(blocking, written)
    grace = session.recipe.run.grace
    if grace and written and blocking + written > parse_duration(grace) and not session.is_grace_short:
        session.is_grace_short = True
        evidence = f"a checkpoint takes {blocking + written:.0f} s, and run.grace is {grace}"
        advice = "raise it, where the platform allows that: a signal may cost the steps since the last one"
        session.recorder.write(events.Finding(session.state.step, "little time to save", evidence, advice))


def _forecast_at_start(session: Session) -> None:
    plan, recorder, runs = session.plan, session.recorder, session.run.path.parent
    size, rate = session.state.course.at(0).micro_batch_size, recorder.matrix_rate / session.world.size
    recorder.write(*tell_at_start(plan, size, rate, recorder.memory(), runs, session.options.traced))


def _forecast(session: Session) -> None:
    session.recorder.drain()
    session.recorder.write(session.pace.forecast(session.recorder.memory()))


def _is_log_step(session: Session) -> bool:
    step = session.state.step
    return step % (session.state.made_by.records.log_every_steps or 1) == 0 or session.state.is_last_step


def _is_evaluation_due(session: Session) -> bool:
    recipe, step, plan = session.state.made_by.evaluate, session.state.step, session.plan
    every = recipe.every_steps or (recipe.every_epochs or 1) * plan.steps_per_epoch
    return plan.is_validated and (step % every == 0 or session.state.is_last_step)


def _is_checkpoint_due(session: Session) -> bool:
    recipe, step = session.state.made_by.checkpoint, session.state.step
    if step == session.judge.best_step or session.state.is_last_step or step in recipe.keep_at:
        return True
    if recipe.every_steps is not None:
        return step % recipe.every_steps == 0
    is_late = time.monotonic() - session.keeper.saved_time > 60 * (recipe.every_minutes or _DEFAULT_MINUTES)
    return _is_common_step(session) and bool(session.world.agree(is_late))


def _is_common_step(session: Session) -> bool:
    """True if the ranks talk about more than gradients after this step; one rank always may."""
    if session.world.size == 1 or _is_log_step(session) or _is_evaluation_due(session):
        return True
    step, course = session.state.step, session.state.course
    return session.keeper.saved_step == step or course.until(step - 1) == step


def _decide(session: Session) -> Decision:
    """Do what the desk decides after this step, until it is to go on or to stop.

    A run that is at its end is left to a later session if this one has no time for the scores.
    """
    far = Decision("stop", "it is as far as it is to go", is_asked=True)
    decision = far if session.state.step == session.options.stop_at else _ask_desk(session)
    is_end = (decision.kind == "stop" or session.state.is_done) and not decision.is_asked
    if is_end and (reason := session.why_leave_before(session.pace.comparison_seconds())):
        return Decision("stop", reason, is_asked=True, is_paused=True)
    return decision


def _ask_desk(session: Session) -> Decision:
    """Do what the desk decides after this step, until it is to go on or to stop."""
    while (not session.state.is_done or session.is_evaluation_owed) and _is_common_step(session):
        decision = session.desk.decide(session.state.course, session.state.step, session.why_stop())
        if decision.kind in ("go", "stop"):
            return decision
        _act(session, decision)
    exhausted = session.why_stop()
    return Decision("stop", exhausted) if exhausted else Decision("go")


def _act(session: Session, decision: Decision) -> None:
    """Do what a decision asks for, and answer the request for it."""
    done, kind = "", str(decision.kind)
    match kind:
        case "back" if decision.change is not None:
            with _on_device(session):
                go_back(session, decision.change)
                _evaluate_at_start(session)
            return
        case "change" if decision.change is not None:
            change_course(session, decision.change)
            return
        case "fail":
            save(session)
            session.keeper.collect(wait=True)
            raise FaultError(decision.reason)
        case "pause":
            _save_now(session)
            done = f"{decision.reason}; saved, {park(session.state, session.world.device)}"
        case "resume":
            unpark(session.state, session.world.device)
            done = decision.reason
        case "checkpoint":
            done = f"saved as {_save_now(session)}"
        case "evaluate" | "generate":
            with _on_device(session):
                is_evaluation = kind == "evaluate"
                kind, done = _evaluate_now(session) if is_evaluation else _write_now(session, decision.text)
        case "note":
            done = decision.text
    session.answer(kind, done, decision.request)


@contextlib.contextmanager
def _on_device(session: Session) -> Iterator[None]:
    """While entered, the state of a paused run is on its device."""
    state, device = session.state, session.world.device
    unpark(state, device)
    yield
    if session.desk.is_paused:
        park(state, device)


def _save_now(session: Session) -> str:
    """Save this step though that is not due; returns the name of the checkpoint."""
    save(session, asked=True)
    session.keeper.collect(wait=True)
    session.world.wait()
    return checkpoint_name(session.state.step)


def _evaluate_now(session: Session) -> tuple[str, str]:
    """Evaluate this step though that is not due, and decide nothing by it; returns the answer."""
    known = session.evaluated
    if (known is None or known.step != session.state.step) and not _evaluate(session, asked=True):
        return "refuse", "evaluate: the run ends here"
    assert session.evaluated is not None
    return "evaluate", describe(session.evaluated, OpenWindow()) or ""


def _write_now(session: Session, prompt: str) -> tuple[str, str]:
    """Continue a prompt now, into the record; returns the answer. A prompt that is too long ends no run."""
    session.recorder.drain()
    texts, refused = list[events.Generation](), ""
    try:
        with session.interruptible("the sample"), session.invariants.unchanged("samples of text"):
            try:
                texts += session.examiner.write(prompt) if session.world.is_main else []
            except InputError as error:
                refused = f"generate: {error}"
    except Abandoned:
        return "refuse", "generate: the run ends here"
    session.recorder.write(*texts)
    return ("refuse", refused) if refused else ("generate", "; ".join(text.text for text in texts))


def _end(session: Session, decision: Decision) -> Ending:
    """Save what is not yet saved, record how the run ended, and write its report."""
    session.recorder.drain()
    unpark(session.state, session.world.device)
    save(session)
    session.keeper.collect(wait=True)
    if not decision.is_asked:
        if unusable := session.world.agree(session.watch.why_unusable() if session.watch else None):
            raise FaultError(unusable)
        session.world.wait()  # the checkpoint that rank 0 wrote is there for all
        advice = "the run is finished, without scores beside those before training and the baselines"
        try:
            if (step := _at_end(session, "comparison", lambda: take_best(session), advice)) is not None:
                _at_end(session, "comparison", lambda: _compare(session, step), advice)
        except Abandoned:
            decision = _decide_to_leave(session)
    how: State = "paused" if decision.is_paused else "stopped" if decision.is_asked else "finished"
    session.desk.end()
    session.answer(_ACTIONS[how], decision.reason or _DONE, decision.request)
    if session.world.is_main and session.options.has_report and _has_grace_for_report(session):
        advice = f"try etude report {as_argument(session.run.path)}"
        _at_end(session, "report", lambda: write_report(session.run), advice)
    was_asked = decision.is_asked or session.signals.requested is not None
    return Ending(how, decision.reason or None, was_asked)


def _has_grace_for_report(session: Session) -> bool:
    """True unless a signal came and half of run.grace is over, which the report might outlast."""
    grace, signals = session.recipe.run.grace, session.signals
    if grace is None or signals.requested is None:
        return True
    left = signals.moment + parse_duration(grace) - time.monotonic()
    if left > parse_duration(grace) / 2:
        return True
    evidence = f"{max(left, 0.0):.0f} s of run.grace ({grace}) were left"
    advice = f"etude report {as_argument(session.run.path)} writes it"
    session.recorder.write(events.Finding(session.state.step, "no report", evidence, advice, severity="info"))
    return False


def _decide_to_leave(session: Session) -> Decision:
    """The decision for which the final scores were left; the same command makes them."""
    while True:
        decision = session.desk.decide(session.state.course, session.state.step, None)
        if decision.kind == "stop":
            return decision
        if decision.kind == "go":
            return Decision("stop", "it was asked to end", is_asked=True)
        _act(session, decision)


def _explain(options: Options, error: Exception) -> Exception:
    """An error of a run in words: a shortage of memory beside the steps, or where the user's code failed."""
    if isinstance(error, EtudeError) or not is_out_of_memory(error):
        return options.own.explain(error)
    said = shorten(str(error).partition("\n")[0] or type(error).__name__, 100)
    return FaultError(
        f"memory ran out outside the steps ({said}); it takes {SMALLER}; the same command continues from the "
        "last checkpoint"
    )


def _record_failure(session: Session, error: Exception) -> None:
    """Record the error that ends an attempt, unless the journal is what cannot be written."""
    reason = str(error) if isinstance(error, EtudeError) else f"{type(error).__name__}: {error}"
    with contextlib.suppress(Exception):
        code = error.exit_code if isinstance(error, EtudeError) else 1
        session.recorder.write(events.Control(session.state.step, "fail", shorten(reason), exit_code=code))
        session.recorder.sync()


def _compare(session: Session, step: int) -> None:
    """Score weights of a step beside those before training and the baselines, and keep every prediction."""
    with session.interruptible("the final scores"):
        session.recorder.write(*session.examiner.compare(step))


def _at_end(session: Session, what: str, do: Callable[[], T], advice: str) -> T | None:
    """Describe a run whose weights are saved; a failure is recorded, and the run is finished."""
    try:
        return do()
    except LostRankError:  # what the ranks do together is done again when the run is continued
        raise
    except Exception as error:
        evidence = f"{type(error).__name__}: {error}"
        session.recorder.write(events.Finding(session.state.step, f"{what} failed", evidence, advice))
        return None

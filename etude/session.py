"""A run between its start and its end: its parts, put together before the first step."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from etude.assemble import assemble, sharing_of
from etude.causes import explain, find_causes, name_repeats
from etude.control.clerk import Clerk
from etude.control.desk import Desk
from etude.control.mirror import Mirror
from etude.control.place import mirror_rows, open_place, require_place
from etude.control.ranks import read_place
from etude.control.session_end import SessionEnd, find_session_end
from etude.control.signals import StopSignals
from etude.data.loader import Loader
from etude.engine import checkpoint as checkpoints
from etude.engine.device import describe_place
from etude.engine.fork import find_moment
from etude.engine.invariants import MOVED_WITHIN, Invariants
from etude.engine.keeper import Keeper
from etude.engine.loop import Step, TrainState, train
from etude.engine.out_of_memory import is_out_of_memory, release
from etude.engine.recorder import Recorder
from etude.engine.world import World, measure_matrix_rate
from etude.errors import InputError
from etude.evaluate.judge import Judge
from etude.first_course import sized_course, take_lost_changes
from etude.first_findings import find_at_resume, find_at_start, find_faults
from etude.interruption import interruptible
from etude.joining import answer_signal, find_mixed, join_ranks
from etude.notify.channel import open_channels
from etude.objectives.choose import join_kinds
from etude.objectives.examiner import Examiner
from etude.objectives.executing import require_sandbox
from etude.objectives.kind import Kind
from etude.plan import Plan, make_plan
from etude.plan.forecast import Pace, checkpoint_bytes
from etude.plan.rows import short_rows
from etude.probe import find_micro_batch, try_own_code
from etude.recipe.course import Course
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.ending import Ending
from etude.records.folder import checkpoint_name
from etude.records.store import Run, RunWriter
from etude.records.trackers import require_trackers
from etude.requests import open_clerk, void_stale
from etude.run_watch import RunWatch
from etude.start import Options, find_started, open_folder, write_start
from etude.text import shorten
from etude.watch.detectors.collapse import Collapse
from etude.watch.detectors.unseen import Overfitting, ValidationRise

_LONGEST_MIRRORING_SECONDS = 3600.0  # at the end of a run


@dataclass(kw_only=True)
class Session:
    """The parts of a run that work together from its start to its end.

    writer              of the run folder, on the rank that holds it
    watch               reads the records along, on that rank
    mirror              copies the run folder, on that rank, where the recipe names a place for it
    session_end         the end of the session that this process runs in, where one is known
    is_evaluation_owed  whether the step that the run is at has yet to be evaluated
    has_stepped         whether this attempt has made a step
    evaluated           the last evaluation of this attempt
    is_grace_short      whether it is told that a checkpoint takes longer than run.grace
    """

    plan: Plan
    options: Options
    world: World
    state: TrainState
    objective: Kind
    signals: StopSignals
    desk: Desk
    run: Run
    writer: RunWriter | None
    recorder: Recorder
    keeper: Keeper
    judge: Judge
    examiner: Examiner
    pace: Pace
    watch: RunWatch | None
    mirror: Mirror | None = None
    session_end: SessionEnd | None = None
    is_evaluation_owed: bool = False
    has_stepped: bool = False
    evaluated: events.Evaluation | None = None
    is_grace_short: bool = False
    invariants: Invariants = field(init=False)

    def __post_init__(self) -> None:
        plan = self.plan
        self.invariants = Invariants(
            self.state, self.world, plan.train, plan.global_batch_size,
            # One of several tasks may come late.
            moved_within=MOVED_WITHIN if len(plan.tasks) == 1 else max(MOVED_WITHIN, plan.steps_per_epoch),
        )  # fmt: skip
        self.invariants.begin()

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.plan.recipe

    def why_stop(self) -> str | None:
        """The reason to stop before the last step, by the patience that the next one has."""
        return self.judge.why_stop(self.state.course.recipe_at(self.state.step).evaluate.patience)

    def steps(self) -> Generator[Step]:
        """Train from the next step to the last, each under the course as it is then.

        Batches are made ahead in a thread, up to the next change of the course, which closing this stops.
        """
        while not self.state.is_done:
            course, first = self.state.course, self.state.step
            settings = course.at(first)
            ahead = course.data_step(first, len(self.plan.train)) - first
            loader = Loader(
                self.plan.train, global_batch_size=settings.global_batch_size,
                micro_batch_size=settings.micro_batch_size, seed=self.recipe.seed,
                attend_across_documents=self.recipe.data.attend_across_documents,
                rank=self.world.rank, ranks=self.world.size,
                share_up_to=sharing_of(self.state.model, self.recipe, self.options.own).up_to,
            )  # fmt: skip
            with contextlib.closing(loader.iterate(first + ahead, course.until(first) + ahead)) as batches:
                read = self.invariants.reading(batches)
                for step in train(self.state, read, self.objective, self.world, self.options.gradients):
                    self.invariants.note(step)
                    yield step
                    if self.state.course is not course:
                        break

    def log(self, step: Step) -> None:
        """Write down the steps since the last log step, and what rules and ranks tell of them.

        A step that left a broken weight ends the run before its rules are looked at.
        """
        self.recorder.drain()
        found = self.invariants.check(step)
        self.recorder.log(self.invariants.stragglers.times)
        self.recorder.write(*found)

    def why_leave(self, seconds: float = 0.0) -> str | None:
        """The reason to leave the rest to a later session: this one has no time for what takes so long.

        An attempt that has made no step goes on: each session brings a run forward.
        """
        end = self.session_end
        if end is None or not self.has_stepped:
            return None
        every = self.state.made_by.records.log_every_steps or 1
        steps = 1 if self.world.size == 1 else every  # until the desk is asked again
        seconds += self.pace.leaving_seconds(steps)
        if self.mirror:
            seconds += self.mirror.leaving_seconds(checkpoint_bytes(self.plan))
        is_time = end.left > seconds
        return None if is_time and not self.is_evaluation_owed else str(end)

    def why_leave_before(self, seconds: float) -> str | None:
        """The same for what all ranks are about to begin together."""
        if self.session_end is None:
            return None
        reason: str | None = self.world.agree(self.why_leave(seconds))
        return reason

    @contextlib.contextmanager
    def interruptible(self, what: str) -> Iterator[None]:
        """Around long work, which all ranks leave once the run is asked to end. Raises: Abandoned."""

        def is_unwanted() -> bool:
            return self.signals.requested is not None or (clerk is not None and clerk.is_stop_waiting)

        clerk = self.desk.clerk
        during = clerk.during(what) if clerk else contextlib.nullcontext()
        with during, self.state.gathered(), self.world.together(is_unwanted) as check, interruptible(check):
            yield

    def answer(self, action: str, reason: str, request: str | None) -> None:
        """Record what was done after this step for a request, durably."""
        control = events.Control(self.state.step, action, reason, request)
        self.recorder.write(self.desk.sign(control))
        self.recorder.sync()

    def restore(self, path: Path) -> None:
        """Take over a checkpoint. Raises: InputError if it lacks a change that was asked for."""
        asked = self.options.changes
        progress = checkpoints.load_checkpoint(path, self.state)
        if lacking := [change for change in asked if change not in self.state.course.changes]:
            raise InputError(
                f"the run was started without the change of {lacking[0].key} after step {lacking[0].step:,}; "
                "leave it out, or start another run with new=True"
            )
        self.judge.best = progress.best
        self.judge.evaluations_without_improvement = progress.evaluations_without_improvement
        self.judge.counted = progress.counted
        self.is_evaluation_owed = not progress.evaluated
        self.keeper.note(self.state.step)
        self.invariants.begin()
        self.replan()

    def replan(self) -> bool:
        """Forecast from now on what the course plans; False if that was forecast before."""
        steps, before = self.state.course.planned_steps, self.pace.plan
        recipe = self.state.course.recipe_at(steps)
        self.pace.plan = replace(self.plan, recipe=recipe, steps=steps)
        parts = ("train", "evaluate", "checkpoint")
        return any(getattr(recipe, part) != getattr(before.recipe, part) for part in parts)

    def start_attempt(self, checkpoint: Path | None) -> list[str]:
        """Write down the start of an attempt at this step, and remove the checkpoints beyond it.

        Returns the names of what might be taken for a checkpoint and is none.
        """
        if self.writer is None:
            return []
        foreign = checkpoints.remove_unfinished(self.run.checkpoints, beyond=self.state.step)
        self.keeper.point_at(self.judge.best)
        write_start(
            self.writer,
            self.plan,
            self.options,
            from_step=self.state.step,
            checkpoint=checkpoint.name if checkpoint else None,
            course=self.state.course,
            matrix_rate=self.recorder.matrix_rate,
            prefixes=sharing_of(self.state.model, self.recipe, self.options.own).told,
        )
        return foreign


def begin(
    recipe: Recipe, options: Options, stack: contextlib.ExitStack, ending: Callable[[], Ending]
) -> Session:
    """Plan, assemble the model, open the run folder, and restore the newest valid checkpoint.

    stack: closes what is opened here. ending: asked for how the run ended, when it closes.

    Raises: InputError before anything is written; StorageError.
    """
    _require_surroundings(recipe, options)
    _set_determinism(recipe)
    begun = find_started(recipe, options) or options.replays
    plan = make_plan(recipe, own=options.own, today=begun.day if begun else None)
    world = join_ranks(plan, stack)
    state, new_weights = assemble(plan, options, world)
    objective = join_kinds(plan.tasks)
    try_own_code(plan, options.own, state, objective, world)
    # Before the run folder is made, so that it is made whole.
    signals = stack.enter_context(StopSignals(partial(answer_signal, world, options)))
    run, writer = open_folder(plan, options, world)
    clerk = None
    if writer is not None:
        stack.callback(lambda: writer.close(ending().state))
        clerk = open_clerk(plan, state, writer, stack, own_model=options.model is not None)
    path, damage = checkpoints.newest_for_all(run.checkpoints, run.info["id"], world)
    state.course = sized_course(run, plan, state, lambda: find_micro_batch(plan, state, objective, world))
    matrix_rate = world.size * measure_matrix_rate(world.device, state.precision.dtype)
    recorder = Recorder(
        writer, device=world.device, cost=plan.cost, matrix_rate=matrix_rate, precision=state.precision.name
    )
    stack.callback(recorder.close)
    keeper = Keeper(run, recipe.checkpoint, recorder.write)
    stack.callback(keeper.close)
    judge = Judge(recipe.evaluate, plan.metric)
    is_fresh = plan.pretrained is None and options.weights is None
    examiner = Examiner(
        tasks=plan.tasks, train=plan.train, metric=plan.metric, judge=judge, own=options.own, state=state,
        world=world, folder=run.path / "predictions", is_fresh=is_fresh,
    )  # fmt: skip
    watch = _watch(plan, options, state, run, keeper) if writer else None
    desk = _desk(run, state, world, signals, recorder, keeper, watch=watch, clerk=clerk)
    session = Session(
        plan=plan, options=options, world=world, state=state, objective=objective, signals=signals,
        desk=desk, run=run, writer=writer, recorder=recorder, keeper=keeper, judge=judge, examiner=examiner,
        pace=Pace(plan), watch=watch, session_end=_session_end(recipe, world),
    )  # fmt: skip
    desk.why_leave = session.why_leave
    if writer is not None and recipe.run.mirror is not None:
        _open_mirror(session, recipe.run.mirror, stack, ending)
    if path:
        session.restore(path)
    recorder.write(*take_lost_changes(run, state, world))
    with state.gathered():
        if writer is not None and clerk is not None:
            void_stale(clerk, state, writer)
            _write_start(session, path, damage, new_weights)
        recorder.write(*find_faults(plan, options, state, path, new_weights, is_main=world.is_main))
    return session


def _watch(plan: Plan, options: Options, state: TrainState, run: Run, keeper: Keeper) -> RunWatch:
    settle = partial(keeper.collect, wait=True)
    return RunWatch(run, plan.recipe.watch, partial(_explain, plan, options, state), settle)


def _open_mirror(
    session: Session, mirror: str, stack: contextlib.ExitStack, ending: Callable[[], Ending]
) -> None:
    """Copy the run folder to where its recipe says from the next checkpoint on, and at its end."""
    is_whole, plan, run = session.recipe.run.mirror_data, session.plan, session.run
    data = Path(plan.corpus.summary["folder"]) if is_whole else None
    session.mirror = copies = Mirror(run, open_place(mirror, run.name), data=data)
    session.keeper.on_disk = copies.note
    stack.push(lambda kind, *_: _close_mirror(session, copies, ending(), kind))


def _close_mirror(session: Session, mirror: Mirror, ended: Ending, error: type[BaseException] | None) -> None:
    """Copy the run as it is at its end, unless it was interrupted, and record what went wrong."""
    if error is None or not issubclass(error, KeyboardInterrupt):
        end = session.session_end
        mirror.close(ended.state, end.left if end else _LONGEST_MIRRORING_SECONDS)
    session.recorder.write(*mirror.findings(session.state.step))
    session.recorder.sync()


def _session_end(recipe: Recipe, world: World) -> SessionEnd | None:
    """The end of the session of rank 0, which holds for all."""
    end = find_session_end(recipe.run.session_limit) if world.is_main else None
    stated = world.agree(asdict(end) if end else None)
    return SessionEnd(**stated) if stated else None


def _require_surroundings(recipe: Recipe, options: Options) -> None:
    """Raises: InputError if a tracker, the mirror's place, a channel or the sandbox cannot be used."""
    require_sandbox(recipe)
    require_trackers(recipe)
    require_place(recipe, options.runs)
    if read_place().rank == 0:
        open_channels(recipe.notify)


def _desk(
    run: Run, state: TrainState, world: World, signals: StopSignals, recorder: Recorder, keeper: Keeper,
    *, watch: RunWatch | None, clerk: Clerk | None,
) -> Desk:  # fmt: skip
    def course_at(step: int) -> Course:
        find_moment(run, step)
        progress = checkpoints.read_progress(run.checkpoints / checkpoint_name(step))
        return replace(state.course, changes=progress.changes)

    return Desk(
        clerk=clerk,
        asked=lambda: world.pass_on(signals.requested),
        agree=world.agree,
        settle=lambda: keeper.collect(wait=True),
        course_at=course_at,
        tell=recorder.write,
        beat=recorder.beat,
        watch=watch.decide if watch else lambda course, step: None,
    )


def _set_determinism(recipe: Recipe) -> None:
    wanted = recipe.train.deterministic
    if wanted:  # cuBLAS reads it once, before its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)  # which loads torch's compiler


def _write_start(session: Session, path: Path | None, damage: list[str], new_weights: list[str]) -> None:
    """Write down the start of an attempt, and what is known of it; from here on the watch reads along."""
    recorder, watch, foreign = session.recorder, session.watch, session.start_attempt(path)
    assert watch is not None
    recorder.ignore = session.recipe.watch.ignore
    recorder.write(*watch.begin(has_first_weights=session.options.weights is not None))
    recorder.watch = watch.take
    recorder.write(*find_at_start(session.plan, session.state, new_weights))
    recorder.write(*find_mixed(session.world.devices))
    start = path.name if path else "the start"
    recorder.write(*find_at_resume(session.run.checkpoints, session.state.step, foreign, damage, start))
    recorder.sync()
    if view := session.options.view:
        machine = describe_place(session.world.device, session.run.path)
        mirror = mirror_rows(session.recipe, session.run.path)
        view.show_plan(session.run, [*short_rows(session.plan), ("machine", machine), *mirror])


def _explain(plan: Plan, options: Options, state: TrainState, finding: events.Finding) -> events.Finding:
    """A finding with its cause: of a loss that fell too far by tests of the model, else copies of rows."""
    is_alone = plan.recipe.train.devices == 1 or (options.loss is None and state.shards is None)
    if finding.kind in (Overfitting.kind, ValidationRise.kind):
        return name_repeats(finding, plan)
    if finding.kind != Collapse.kind or not is_alone:
        return finding
    try:
        return explain(finding, find_causes(plan, state, options.own))
    except Exception as error:  # what is written to find a fault is to cost no run
        if is_out_of_memory(error):
            release(error)
        return replace(finding, not_tested=[*finding.not_tested, f"causes: {shorten(error, 100)}"])

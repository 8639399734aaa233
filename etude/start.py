"""The start of a run: its folder is found or made, and the conditions of an attempt are written down."""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from etude import durable
from etude.data.samples.frequencies import target_entropy
from etude.engine import checkpoint as checkpoints
from etude.engine.loop import Gradients
from etude.engine.optim import default_weight_decay
from etude.engine.world import World
from etude.errors import EtudeError, InputError
from etude.models.families.table import family_of
from etude.models.untrained import find_untrained
from etude.models.weights import file_digest
from etude.notify.guard import start_guard
from etude.notify.notifier import Notifier, open_notifier
from etude.own import LossFunction, Metric, MetricFunction, Own
from etude.plan import Plan
from etude.plan.disk import require_checkpoints
from etude.recipe.course import Change, Course
from etude.recipe.load import diff, recipe_hash, to_toml, with_changes
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.environment import describe_environment, find_changes
from etude.records.folder import as_argument, checkpoint_name, list_checkpoints
from etude.records.journal import Reader
from etude.records.lineage import FRESH, FirstWeights
from etude.records.store import (
    Run,
    RunWriter,
    Tracker,
    alone,
    create_run,
    find_unfinished,
    hold_run,
    list_runs,
    open_run,
)
from etude.records.trackers import FindingLog, TextLog, TrainerState, open_trackers

_SAMPLES_LOOKED_AT = 64
_CHANGES_NAMED = 4
_SHARED_SECONDS = 30.0  # until a shared disk shows other machines a new folder


class View(Tracker, Protocol):
    """A reader of one run, shown the plan and then every record; it decides nothing in the loop."""

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None: ...

    def acknowledge(self, signal: str) -> None:
        """Show that a signal came, before the run stops for it; called as a signal handler is."""


@dataclass(frozen=True)
class Options:
    """Options of a run beside its recipe, and the user's own code; `changes` alone change the recipe.

    runs         the folder of the runs
    new          start a run even if one of the same recipe is unfinished
    resume       the run to continue
    weights      the first weights: RUN@best, RUN@last, RUN@step-000100 or a folder
    changes      dated changes of the recipe, from the start; a run that goes on has them already
    recipe_text  the recipe file as given, kept in the run
    model        the user's module
    loss         the user's loss(model, batch) -> (sum, targets)
    metrics      the user's metric(model, batches) -> float by name; a `Metric` also has its direction
    view         shows the run to a person
    gradients    makes those of a step, as for runs that share passes
    guard        starts a process beside the run that tells if it dies, and starts it again so often; or None
    replays      the run that is made again, by `replay`
    stop_at      the step after which the run stops, as if it was asked to
    has_report   whether the report is written at the end; `etude report` writes it at any time
    traced       samples of a micro-batch, and `Memory.added` of a step in such; or None
    """

    runs: Path = Path("runs")
    new: bool = False
    resume: Run | None = None
    weights: str | None = None
    changes: tuple[Change, ...] = ()
    recipe_text: str | None = None
    model: nn.Module | None = None
    loss: LossFunction | None = None
    metrics: Mapping[str, Metric | MetricFunction] = field(default_factory=dict)
    view: View | None = None
    gradients: Gradients | None = None
    guard: int | None = None
    replays: Run | None = None
    stop_at: int | None = None
    has_report: bool = True
    traced: tuple[int, int] | None = None

    @cached_property
    def first_weights(self) -> Path | None:
        """The file of the first weights, looked for once: the new run may have the name that was given.

        Raises: InputError if there is none.
        """
        return None if self.weights is None else find_weights(self.weights, self.runs)

    @property
    def own(self) -> Own:
        """The user's own code."""
        given = self.metrics.items()
        metrics = {name: each if isinstance(each, Metric) else Metric(each) for name, each in given}
        return Own(self.model, self.loss, metrics)


def open_folder(plan: Plan, options: Options, world: World) -> tuple[Run, RunWriter | None]:
    """Create or continue the run on rank 0, and tell the others its path, or what is wrong.

    Raises: InputError on every rank if the data has changed, or another process holds the run.
    """
    writer, answer = None, ""
    if world.is_main:
        try:
            writer = _hold(plan, options)
            answer = str(writer.run.path)
            if options.guard is not None:
                start_guard(writer.run, options.guard)
        except EtudeError as error:
            if world.size == 1:
                raise
            answer = f"!{error}"
    answer = world.agree(answer)
    if answer.startswith("!"):
        raise InputError(answer[1:])
    if writer is None and world.size > 1:
        _require_folder(Path(answer))
    return writer.run if writer else Run(Path(answer)), writer


def _require_folder(path: Path) -> None:
    """Raises: InputError if the run folder of rank 0 is not on this machine, too."""
    end = time.monotonic() + _SHARED_SECONDS
    while not (path / "run.json").exists():
        if time.monotonic() > end:
            raise InputError(
                f"{path}, the run folder of rank 0, is not there on {socket.gethostname()}; put --runs on a "
                "disk that all machines share"
            )
        time.sleep(0.2)


def write_start(
    writer: RunWriter,
    plan: Plan,
    options: Options,
    *,
    from_step: int,
    checkpoint: str | None,
    course: Course,
    matrix_rate: float,
    prefixes: str,
) -> None:
    """Write down the conditions of an attempt, and open the trackers."""
    run, is_first = writer.run, not (writer.run.path / "environment.json").exists()
    resolved = _resolve(plan, course.recipe)
    environment, changes = _write_conditions(run, plan, options, resolved, is_first=is_first)
    reader = Reader(run.path / "journal.jsonl")
    # Those of the attempt before, if this process made that too; what tells people goes on.
    notifiers = [each for each in writer.trackers if isinstance(each, Notifier)]
    writer.close_trackers(but=[options.view, *notifiers])
    writer.trackers = [TextLog(writer), options.view or FindingLog(), *notifiers]
    writer.append(
        events.Attempt(
            number=1 + max((entry.attempt for entry in reader.read().all), default=0),
            from_step=from_step,
            steps=course.planned_steps,
            steps_per_epoch=plan.steps_per_epoch,
            device=plan.device.type,
            devices=plan.recipe.train.devices,
            precision=plan.precision,
            micro_batch_size=course.at(from_step).micro_batch_size,
            parameters=plan.parameters,
            flops_per_token=plan.cost.per_token,
            flops_per_target=plan.cost.per_target,
            trainable=plan.trainable,
            matrix_flops_per_second=matrix_rate,
            environment=environment,
            checkpoint=checkpoint,
            changed=changes,
            lower_is_better=plan.metric.lower_is_better,
            prefixes=prefixes,
        )
    )
    # After the attempt, so that they see which earlier records no longer count.
    writer.trackers.append(TrainerState(run, reader.read()))
    open_trackers(plan.recipe, writer, reader)
    if not notifiers:
        open_notifier(plan.recipe.notify, writer, reader)
    if is_first:
        tokenizer = plan.corpus.tokenizer.fingerprint
        is_text = len(plan.tasks) == 1 and not plan.recipe.kind.has_labels
        entropy = target_entropy(plan.corpus.train) if is_text else None
        writer.append(events.DataUsed(plan.fingerprint, plan.data_summary, plan.held_out, tokenizer, entropy))
        writer.append(*_other_unfinished(resolved, options, run))
    for change in changes:
        advice = "bits may differ from an unbroken run"
        writer.append(events.Finding(from_step, "changed since the first attempt", change, advice))


def _write_conditions(
    run: Run, plan: Plan, options: Options, resolved: Recipe, *, is_first: bool
) -> tuple[dict[str, Any], list[str]]:
    """Write environment.json and resolved.toml at first; returns the conditions, and the changes of them."""
    environment = describe_environment(run.path) | {
        "recipe_hash": recipe_hash(resolved),
        "data_fingerprint": plan.fingerprint,
        "threads": torch.get_num_threads(),
        "micro_batch_size": resolved.train.micro_batch_size,
        "device": plan.device.type,
        "devices": plan.recipe.train.devices,
        "precision": plan.precision,
        "parallel": plan.parallel.kind,
        "run": plan.recipe.run.model_dump(exclude_none=True),
        "notify": [each.model_dump(exclude_none=True) for each in plan.recipe.notify],
        "own_code": options.own.describe(),
        "base": base_of(plan),
    }
    changes = [] if is_first else find_changes(run.environment, environment)
    if is_first:
        durable.write_json(run.path / "environment.json", environment)
    # Last, so that a kill between them leaves the recipe as run.json has it, and the next attempt ends here.
    if is_first or recipe_hash(run.recipe) != run.environment.get("recipe_hash") == recipe_hash(resolved):
        durable.write_file(run.path / "resolved.toml", to_toml(resolved).encode())
    return environment, changes


def base_of(plan: Plan) -> dict[str, str] | None:
    """The pretrained model that a run starts from, named so that another one cannot pass for it."""
    if plan.pretrained is None:
        return None
    return {
        "from": str(plan.recipe.model.from_),
        "path": str(plan.pretrained.path),
        "sha256": plan.pretrained.digest,
    }


def untrained_finding(plan: Plan, model: nn.Module) -> events.Finding | None:
    """The finding that an adapter leaves frozen the untrained embedding of a token that samples have."""
    if plan.recipe.adapter is None:
        return None
    names: dict[str, None] = {}
    for task in plan.tasks:
        tokenizer, train = task.corpus.tokenizer, task.corpus.train
        samples = [train.sample(index) for index in range(min(len(train), _SAMPLES_LOOKED_AT))]
        used = set(np.concatenate([part for each in samples for part in (each.tokens, each.labels)]).tolist())
        for token in find_untrained(model, used.intersection(tokenizer.added_ids)):
            names[tokenizer.decode([token], skip_special=False)] = None
    if not names:
        return None
    some = ", ".join(list(names)[:4]) + (" ..." if len(names) > 4 else "")
    evidence = f"the embedding or head of {some} looks untrained, and the adapter leaves it so"
    advice = "train all weights (leave [adapter] out)"
    if not names.keys() & {task.corpus.tokenizer.eos_token for task in plan.tasks}:  # a plain template has it
        advice += ', or set data.template = "plain" to do without these tokens'
    return events.Finding(0, "untrained tokens", evidence, advice)


def find_weights(given: str, runs: Path) -> Path:
    """The file of weights, or of an adapter, of a folder, RUN@best, RUN@last, RUN@step-000100 or RUN.

    RUN alone is its best. Raises: InputError if there is none.
    """
    if durable.is_plain(checkpoints.weights_file(Path(given))):
        return checkpoints.weights_file(Path(given))
    name, which = split_choice(given)
    run = open_run(name, runs)
    saved = [path.name for path in list_checkpoints(run.checkpoints)]
    if which == "best" and run.best:
        which = run.best["checkpoint"]
    elif which in ("best", "last") and saved:
        which = saved[-1]
    if which not in saved:
        shown = f"{', '.join(saved[:2])} to {saved[-1]}" if len(saved) > 4 else ", ".join(saved)
        raise InputError(f"run {run.name} has no checkpoint {which}; it has {shown or 'none'}")
    return checkpoints.weights_file(run.checkpoints / which)


def split_choice(given: str) -> tuple[str, str]:
    """The run, and `best`, `last` or `step-000200`, of RUN@best, RUN@last, RUN@step-200 or RUN.

    RUN alone is its best. Raises: InputError if no checkpoint is named so, or no run.
    """
    name, sign, which = given.rpartition("@")
    if not sign or "/" in which or durable.is_plain(Path(given) / "run.json"):
        name, which = given, "best"
    step = re.fullmatch(r"step-([0-9]{1,18})", which)
    if not name or not (step or which in ("best", "last")):
        what = f"there is no checkpoint {which[:40]}" if name else "no run is named"
        raise InputError(f"{given[:80]}: {what}; expected RUN, RUN@best, RUN@last or RUN@step-200")
    return name, checkpoint_name(int(step[1])) if step else which


def find_first(options: Options) -> FirstWeights:
    """The first weights that a run is to begin with. Raises: as `find_weights`."""
    if options.weights is None or options.first_weights is None:
        return FRESH
    parent, _ = split_choice(options.weights)
    return FirstWeights(parent, file_digest(options.first_weights))


def find_started(recipe: Recipe, options: Options) -> Run | None:
    """The run that is continued, or None if a new one is to start."""
    if options.resume or options.new:
        return options.resume
    replayed = options.replays.info["id"] if options.replays else None
    return find_unfinished(options.runs, recipe, find_first(options), replayed)


def _hold(plan: Plan, options: Options) -> RunWriter:
    if options.resume:
        return _continue(plan, options.resume)
    with alone(options.runs):
        if run := find_started(plan.recipe, options):
            return _continue(plan, run)
        require_checkpoints(plan, options.runs)
        first, text = find_first(options), options.recipe_text
        kept = {"weights": first.sha256}
        if options.replays:
            kept |= {"replays": options.replays.info["id"], "day": options.replays.day}
        return create_run(options.runs, plan.recipe, recipe_text=text, parent=first.parent, inherited=kept)


def _continue(plan: Plan, run: Run) -> RunWriter:
    """Hold a run whose recipe, data and base are those it started with.

    Raises: InputError if they are not.
    """
    run.require_own_recipe()
    if not (run.path / "environment.json").exists():
        return hold_run(run)
    start, what = run.environment, None
    if start["data_fingerprint"] != plan.fingerprint:
        what = f"the data of run {run.name} has changed since"
    elif (start.get("base") or {}).get("sha256") != (base_of(plan) or {}).get("sha256"):
        what = f"model.from of run {run.name} holds other weights than when"
    if what:
        raise InputError(f"{what} it started; bring it back, or start another run with --new")
    return hold_run(run)


def _other_unfinished(resolved: Recipe, options: Options, run: Run) -> list[events.Finding]:
    """The newest other run of this name, if it has not finished, and the differences of its recipe."""
    others = [other for other in list_runs(options.runs) if other.info.get("name") == resolved.name]
    others = [other for other in others if other.name != run.name][-1:]
    try:
        if options.new or not others or not others[0].is_unfinished:
            return []
        (other,) = others
        changed = [f"{key} {old} -> {new}" for key, (old, new) in diff(other.recipe, resolved).items()]
    except InputError:  # that run cannot be read, which is no reason not to start this one
        return []
    first = FirstWeights(run.info.get("parent"), run.info.get("weights"))
    if other.info.get("parent") != first.parent:
        changed.append(f"first weights {other.info.get('parent')} -> {first.parent}")
    elif not first.are_of(other.info):
        changed.append(f"other weights of {first.parent}")
    more = f" and {len(changed) - _CHANGES_NAMED} more" if len(changed) > _CHANGES_NAMED else ""
    evidence = f"{other.name} is {other.state}, and left as it is"
    has = ", ".join(changed[:_CHANGES_NAMED]) + more
    advice = f"etude resume {as_argument(other.path)} continues it; this one has {has}"
    return [events.Finding(0, "another run is unfinished", evidence, advice, severity="info")]


def _resolve(plan: Plan, recipe: Recipe) -> Recipe:
    """The recipe of a course with its automatic values: sizes of the model, weight decay, log lines."""
    known: dict[str, Any] = {
        "optim.weight_decay": default_weight_decay(recipe.optim),
        "records.log_every_steps": plan.log_every_steps,
    }
    if plan.model is not None and plan.pretrained is None:
        keys = family_of(plan.model).sizes
        sizes = {name: value for name, value in asdict(plan.model).items() if name in keys}
        known |= {f"model.{name}": value for name, value in sizes.items() if value is not None}
    asked, there = plan.recipe.tokenizer.train_vocab_size, int(plan.corpus.summary["vocab_size"])
    if asked is not None and there < asked:  # a small text gives fewer, and this many give the same tokenizer
        known["tokenizer.train_vocab_size"] = there
    return with_changes(recipe, known)

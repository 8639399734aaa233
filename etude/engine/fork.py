"""A new run from a moment of another."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etude import durable
from etude.engine.checkpoint import read_progress, verify_checkpoint
from etude.errors import DamageError, InputError
from etude.recipe.course import FORK_KEYS, KEYS, Change, Course
from etude.recipe.life import is_beside
from etude.recipe.load import diff, flatten, recipe_hash, to_toml, with_changes
from etude.recipe.schedule import HORIZON, shared_steps
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Control, Evaluation, Finding, Step
from etude.records.folder import as_argument, checkpoint_name, list_checkpoints, require_own
from etude.records.journal import write_journal
from etude.records.ledger import Entry
from etude.records.lineage import Origin, records_until
from etude.records.store import Run, create_run
from etude.text import plural

_COPY_BYTES = 1 << 20
# The reasons why keys of a section are the same in a fork.
_REASONS = {
    "data": "its place in the data is one of these rows",
    "tokenizer": "its weights are of these tokens",
    "model": "its weights and moments have these shapes",
    "adapter": "its weights and moments have these shapes",
    "tasks": "its place in the data is one of these rows",
    "seed": "the order of the data follows from it",
    "evaluate": "its best checkpoint was chosen by it",
    "loss": "its steps until there have another loss",
}


def fork(
    run: Run,
    step: int,
    runs: Path,
    recipe: Recipe | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
    who: str | None = None,
) -> Run:
    """Start a run that goes on from a checkpoint of another as that would, bit for bit.

    It has its own id and begins with the weights, optimizer, place in the data, best checkpoint, predictions
    before training and records of that moment. `etude resume` goes on with it, by its name only.

    recipe: of the new run, which ends elsewhere: it may differ in the keys of HORIZON, as far as the learning
    rates until the step are the same. The new run then is what it would be if it had begun by itself.

    changes: values by key, of KEYS from that step on, of FORK_KEYS and of how a run lives from the start of
    the new run. who: asks.

    Raises: InputError if there is no such checkpoint, a part of the run leads elsewhere, or the recipe is
    another one; DamageError if the checkpoint is not what was written; StorageError. Nothing is left behind
    then.
    """
    require_own(run.path)
    run.require_own_recipe()
    moment = find_moment(run, step)
    info, ledger = run.info, run.ledger()
    dated, others = _divide(run, step, changes, who)
    inherited = {key: info.get(key) for key in ("parent", "weights", "recipe_hash") if key in info} | {
        "day": run.day,
        "origin": asdict(_origin(info, step, others)),
    }
    entries = records_until(ledger, step)
    end = _find_end(run, step, recipe, entries) if recipe else None
    if others:
        end = _End(recipe := with_changes(run.recipe, others), is_evaluation_owed=False)
    if recipe:
        inherited["recipe_hash"] = recipe_hash(recipe)

    def fill(folder: Path, identity: str) -> None:
        for name, manifest in moment.items():
            is_own = name == checkpoint_name(step)
            is_owed, made = is_own and end is not None and end.is_evaluation_owed, dated if is_own else ()
            target = folder / "checkpoints" / name
            _copy_checkpoint(run.checkpoints / name, target, identity, manifest, made, is_owed=is_owed)
        for name in ("recipe.toml", "resolved.toml", "environment.json") if end is None else ():
            _copy(run.path / name, folder / name)
        if end is not None:
            durable.write_file(folder / "resolved.toml", to_toml(end.resolved).encode())
            conditions = {**run.environment, "recipe_hash": recipe_hash(end.resolved)}
            durable.write_json(folder / "environment.json", conditions)
        _copy_predictions(run.path, folder)
        if best := read_progress(run.checkpoints / checkpoint_name(step)).best:
            durable.write_json(folder / "best.json", best)
        gaps = _find_gaps(run, step, entries, ledger.damaged)
        write_journal(folder / "journal.jsonl", [*entries, *gaps, *_tell(run, step, dated)])

    writer = create_run(runs, recipe or run.recipe, inherited=inherited, fill=fill)
    writer.close("stopped")
    return writer.run


def _divide(
    run: Run, step: int, changes: Mapping[str, Any], who: str | None
) -> tuple[tuple[Change, ...], dict[str, Any]]:
    """The changes that hold from a step on, and those that the new run has from its start.

    Raises: InputError for a key that cannot be another one, with what can be done; RecipeError for a value.
    """
    checkpoint, others = f"{as_argument(run.path)}@{checkpoint_name(step)}", dict[str, Any]()
    dated: list[Change] = []
    for key, value in changes.items():
        if key in KEYS:
            reason = f"forked from {run.name}"
            dated.append(Change(step, key, value, reason, who=who, channel="fork"))
        elif key in FORK_KEYS or is_beside(key):
            others[key] = value
        else:
            why = _REASONS.get(key.partition(".")[0])
            if why is None:
                with_changes(run.recipe, {key: value})  # which knows the keys, and says what is nearest
                why = "its steps until there were made with it"
            raise InputError(
                f"{key} cannot change in a fork: {why}; etude train RECIPE {key}=VALUE --from {checkpoint} "
                "begins a new run with these weights, where they fit"
            )
    if dated:
        _course(run, step).with_changes(dated)
    if others:
        with_changes(run.recipe, others)
    return tuple(dated), others


def _origin(info: Mapping[str, Any], step: int, changes: Mapping[str, Any]) -> Origin:
    """The origin of a fork; it keeps the changes that its steps would have been made with."""
    made_with = {key: value for key, value in changes.items() if not is_beside(key)}
    return Origin(info["id"], step, info.get("origin", {}).get("changes", {}) | made_with)


def _course(run: Run, step: int) -> Course:
    """The course of a run until a step."""
    attempt = next(each.event for each in run.ledger().all if isinstance(each.event, Attempt))
    train = run.recipe.train
    steps = train.steps or (train.epochs or 0) * attempt.steps_per_epoch
    return Course(run.recipe, steps, read_progress(run.checkpoints / checkpoint_name(step)).changes)


def _tell(run: Run, step: int, changes: Sequence[Change]) -> Iterator[Entry]:
    """Records of the changes of a fork."""
    course = _course(run, step).with_changes(changes) if changes else None
    for each in changes:
        assert course is not None
        reason = f"{each.key} is {each.value} after step {step:,}: {each.reason}"
        control = Control(
            step, "change", reason, None, {each.key: each.value}, step,
            before={each.key: course.before(each)}, who=each.who, channel=each.channel,
        )  # fmt: skip
        yield Entry(control, time.time(), 0)


@dataclass(frozen=True)
class _End:
    """Another end of a run: the recipe with every automatic value, and what is left to do at the fork."""

    resolved: Recipe
    is_evaluation_owed: bool


def _find_end(run: Run, step: int, recipe: Recipe, entries: list[Entry]) -> _End:
    """The end that a recipe gives a run from a step on.

    Raises: InputError if the recipe differs in more, or the steps until then would not be the same.
    """
    before = flatten(run.recipe.to_dict())
    own = {key: before.get(key) for key in HORIZON}
    if recipe_hash(with_changes(recipe, own)) != run.info["recipe_hash"]:
        others = [
            key
            for key, (_, new) in diff(run.recipe, recipe).items()
            if key not in HORIZON and new not in (None, "auto")
        ]
        raise InputError(
            f"the recipe differs from that of run {run.name} in more than its length and schedule"
            f"{', as ' * bool(others)}{', '.join(others[:3])}; a fork takes the rest as it is"
        )
    attempt = next(entry.event for entry in reversed(entries) if isinstance(entry.event, Attempt))
    steps = recipe.train.steps or (recipe.train.epochs or 0) * attempt.steps_per_epoch
    same = shared_steps(run.recipe.schedule, attempt.steps, recipe.schedule, steps)
    if step > same:
        raise InputError(
            f"run {run.name} and a run of {steps:,} steps have {same:,} steps in common; fork at one of these"
        )
    new = flatten(recipe.to_dict())
    resolved = with_changes(run.recipe, {key: new.get(key) for key in HORIZON})
    is_evaluated = any(isinstance(each.event, Evaluation) and each.event.step == step for each in entries)
    return _End(resolved, recipe.data.validation != "none" and step == steps and not is_evaluated)


def find_moment(run: Run, step: int) -> dict[str, dict[str, Any]]:
    """The manifests of the checkpoints of a moment of a run, by name: of its own, and of the best until then.

    Raises: InputError if one of them is not there; DamageError.
    """
    saved = [path.name for path in list_checkpoints(run.checkpoints)]
    name = checkpoint_name(step)
    if name not in saved:
        known = f"it has {', '.join(saved[-3:])}" if saved else "it has none"
        raise InputError(f"run {run.name} has no checkpoint of step {step}; {known}")
    own = verify_checkpoint(run.checkpoints / name, run.info["id"])
    progress = read_progress(run.checkpoints / name)
    if (progress.run, progress.step) != (run.info["id"], step):
        raise DamageError(f"checkpoint {name} is damaged: its state.json is of step {progress.step}")
    best = progress.best["checkpoint"] if progress.best else name
    if best not in saved:
        raise InputError(
            f"run {run.name} no longer has {best}, the best checkpoint at step {step}; take a later step"
        )
    return {best: verify_checkpoint(run.checkpoints / best, run.info["id"]), name: own}


def _find_gaps(run: Run, step: int, entries: list[Entry], damaged: list[int]) -> list[Entry]:
    """A finding that the journal of the parent lacks records, which the new run lacks too."""
    steps = {entry.event.step for entry in entries if isinstance(entry.event, Step)}
    if len(steps) == step and not damaged:
        return []
    lines = plural(len(damaged), "damaged line")
    evidence = f"the journal of {run.name} has {len(steps):,} of {step:,} steps until here, and {lines}"
    advice = "restore it from a copy and fork again, or know that figures and report leave them out"
    return [Entry(Finding(step, "records are missing", evidence, advice), time.time(), 0)]


def _copy_checkpoint(
    source: Path,
    target: Path,
    run: str,
    manifest: dict[str, Any],
    changes: Sequence[Change] = (),
    *,
    is_owed: bool = False,
) -> None:
    """Copy a checkpoint as one of another run with further changes, manifest last.

    is_owed: it has yet to be evaluated
    """
    durable.make_folder(target)
    progress = read_progress(source)
    progress = replace(progress, run=run, evaluated=progress.evaluated and not is_owed)
    progress = replace(progress, changes=(*progress.changes, *changes))
    state = durable.write_json(target / "state.json", asdict(progress))
    for name in manifest["files"].keys() - {"state.json"}:
        _copy(source / name, target / name)
    files = {**manifest["files"], "state.json": asdict(state)}
    kept = {key: value for key, value in manifest.items() if key != "journal"}  # that of the parent
    durable.write_json(target / "manifest.json", {**kept, "run": run, "files": files})
    verify_checkpoint(target, run)


def _copy(source: Path, target: Path) -> None:
    with durable.open_plain(source, follow=False) as file:
        durable.write_file(target, iter(lambda: file.read(_COPY_BYTES), b""))


def _copy_predictions(source: Path, target: Path) -> None:
    """Copy what was predicted before training."""
    for before in sorted((source / "predictions").rglob("before-*")):
        path = target / before.relative_to(source)
        durable.make_folder(path.parent)
        _copy(before, path)

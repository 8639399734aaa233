"""A new run from a moment of another."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from etude import durable
from etude.engine.checkpoint import read_progress, verify_checkpoint
from etude.errors import DamageError, InputError
from etude.recipe.load import diff, flatten, recipe_hash, to_toml, with_changes
from etude.recipe.schedule import HORIZON, shared_steps
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Evaluation, Finding, Step
from etude.records.folder import checkpoint_name, list_checkpoints, require_own
from etude.records.journal import write_journal
from etude.records.ledger import Entry
from etude.records.lineage import Origin, records_until
from etude.records.store import Run, create_run
from etude.text import plural

_COPY_BYTES = 1 << 20


def fork(run: Run, step: int, runs: Path, recipe: Recipe | None = None) -> Run:
    """Start a run that goes on from a checkpoint of another as that would, bit for bit.

    It has its own id and begins with the weights, optimizer, place in the data, best checkpoint, predictions
    before training and records of that moment. `etude resume` goes on with it, by its name only.

    recipe: of the new run, which ends elsewhere: it may differ in the keys of HORIZON, as far as the learning
    rates until the step are the same. The new run then is what it would be if it had begun by itself.

    Raises: InputError if there is no such checkpoint, a part of the run leads elsewhere, or the recipe is
    another one; DamageError if the checkpoint is not what was written; StorageError. Nothing is left behind
    then.
    """
    require_own(run.path)
    run.require_own_recipe()
    moment = find_moment(run, step)
    info, origin, ledger = run.info, asdict(Origin(run.info["id"], step)), run.ledger()
    inherited = {key: info.get(key) for key in ("parent", "weights", "recipe_hash") if key in info} | {
        "day": run.day,
        "origin": origin,
    }
    entries = records_until(ledger, step)
    end = _find_end(run, step, recipe, entries) if recipe else None
    if recipe:
        inherited["recipe_hash"] = recipe_hash(recipe)

    def fill(folder: Path, identity: str) -> None:
        for name, manifest in moment.items():
            is_owed = end is not None and end.is_evaluation_owed and name == checkpoint_name(step)
            target = folder / "checkpoints" / name
            _copy_checkpoint(run.checkpoints / name, target, identity, manifest, is_owed=is_owed)
        for name in ("recipe.toml", "resolved.toml", "environment.json") if end is None else ():
            _copy(run.path / name, folder / name)
        if end is not None:
            durable.write_file(folder / "resolved.toml", to_toml(end.resolved).encode())
            conditions = {**run.environment, "recipe_hash": recipe_hash(end.resolved)}
            durable.write_json(folder / "environment.json", conditions)
        for before in sorted((run.path / "predictions").rglob("before-*")):
            target = folder / before.relative_to(run.path)
            durable.make_folder(target.parent)
            _copy(before, target)
        if best := read_progress(run.checkpoints / checkpoint_name(step)).best:
            durable.write_json(folder / "best.json", best)
        write_journal(folder / "journal.jsonl", [*entries, *_find_gaps(run, step, entries, ledger.damaged)])

    writer = create_run(runs, recipe or run.recipe, inherited=inherited, fill=fill)
    writer.close("stopped")
    return writer.run


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
    source: Path, target: Path, run: str, manifest: dict[str, Any], *, is_owed: bool = False
) -> None:
    """Copy a checkpoint as one of another run, manifest last; is_owed: it has yet to be evaluated."""
    durable.make_folder(target)
    progress = read_progress(source)
    progress = replace(progress, run=run, evaluated=progress.evaluated and not is_owed)
    state = durable.write_json(target / "state.json", asdict(progress))
    for name in manifest["files"].keys() - {"state.json"}:
        _copy(source / name, target / name)
    files = {**manifest["files"], "state.json": asdict(state)}
    durable.write_json(target / "manifest.json", {**manifest, "run": run, "files": files})
    verify_checkpoint(target, run)


def _copy(source: Path, target: Path) -> None:
    with durable.open_plain(source, follow=False) as file:
        durable.write_file(target, iter(lambda: file.read(_COPY_BYTES), b""))

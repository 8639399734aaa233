"""A new run from a moment of another."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from etude import durable
from etude.engine.checkpoint import read_progress, verify_checkpoint
from etude.errors import DamageError, InputError
from etude.records.events import Finding, Step
from etude.records.folder import checkpoint_name, list_checkpoints, require_own
from etude.records.journal import write_journal
from etude.records.ledger import Entry
from etude.records.lineage import Origin, records_until
from etude.records.store import Run, create_run
from etude.text import plural

_COPY_BYTES = 1 << 20


def fork(run: Run, step: int, runs: Path) -> Run:
    """Start a run that goes on from a checkpoint of another as that would, bit for bit.

    It has its own id and begins with the weights, optimizer, place in the data, best checkpoint, predictions
    before training and records of that moment. `etude resume` goes on with it, by its name only.

    Raises: InputError if there is no such checkpoint, or a part of the run leads elsewhere; DamageError if
    the checkpoint is not what was written; StorageError. Nothing is left behind then.
    """
    require_own(run.path)
    run.require_own_recipe()
    moment = find_moment(run, step)
    info, origin = run.info, asdict(Origin(run.info["id"], step))
    inherited = {key: info.get(key) for key in ("parent", "weights", "recipe_hash") if key in info} | {
        "day": run.day,
        "origin": origin,
    }

    def fill(folder: Path, identity: str) -> None:
        for name, manifest in moment.items():
            _copy_checkpoint(run.checkpoints / name, folder / "checkpoints" / name, identity, manifest)
        for name in ("recipe.toml", "resolved.toml", "environment.json"):
            _copy(run.path / name, folder / name)
        for before in sorted((run.path / "predictions").rglob("before-*")):
            target = folder / before.relative_to(run.path)
            durable.make_folder(target.parent)
            _copy(before, target)
        if best := read_progress(run.checkpoints / checkpoint_name(step)).best:
            durable.write_json(folder / "best.json", best)
        ledger = run.ledger()
        entries = records_until(ledger, step)
        write_journal(folder / "journal.jsonl", [*entries, *_find_gaps(run, step, entries, ledger.damaged)])

    writer = create_run(runs, run.recipe, inherited=inherited, fill=fill)
    writer.close("stopped")
    return writer.run


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


def _copy_checkpoint(source: Path, target: Path, run: str, manifest: dict[str, Any]) -> None:
    """Copy a checkpoint as one of another run, manifest last."""
    durable.make_folder(target)
    state = durable.write_json(target / "state.json", asdict(replace(read_progress(source), run=run)))
    for name in manifest["files"].keys() - {"state.json"}:
        _copy(source / name, target / name)
    files = {**manifest["files"], "state.json": asdict(state)}
    durable.write_json(target / "manifest.json", {**manifest, "run": run, "files": files})
    verify_checkpoint(target, run)


def _copy(source: Path, target: Path) -> None:
    with durable.open_plain(source, follow=False) as file:
        durable.write_file(target, iter(lambda: file.read(_COPY_BYTES), b""))

"""A run that is attacked: its recipe, the command that trains it, and what must not depend on any attack."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from etude.engine.checkpoint import newest_valid
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Step
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.recipes import tiny

STEPS = 4
_CHANGES = {
    "model.n_layer": 1, "model.n_embd": 16, "model.n_ffn": 16, "model.dropout": 0.1, "train.steps": STEPS,
    "checkpoint.every_steps": 1, "checkpoint.keep": 2, "evaluate.every_steps": 2, "records.log_every_steps": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Bits:
    """Numbers of a run: hashes of its checkpoints by name, losses of its steps, validation losses."""

    checkpoints: dict[str, str]
    losses: dict[int, float]
    validation: dict[int, float]


def write_run(folder: Path, mirror: Path | None = None) -> Recipe:
    """Write the recipe of a run that saves at each step as `recipe.toml`, with its data."""
    folder.mkdir(parents=True, exist_ok=True)
    values = tiny(write_corpus(folder / "corpus.jsonl"), _CHANGES)
    recipe = recipe_from(values if mirror is None else {**values, "run": {"mirror": str(mirror)}})
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe.to_dict()))
    return recipe


def whole_bits(recipe: Recipe, runs: Path) -> Bits:
    """The numbers of a run that nobody disturbs, with all its checkpoints."""
    values = {**recipe.to_dict(), "checkpoint": {"every_steps": 1, "keep": "all"}, "run": {}}
    return bits_of(run_recipe(recipe_from(values), Options(runs=runs)).run)


def bits_of(run: Run) -> Bits:
    """The numbers of a run as they are now, of those checkpoints that its manifests say are whole."""
    events = [entry.event for entry in run.ledger().entries]
    return Bits(
        {path.parent.name: _hash(path.parent) for path in run.checkpoints.glob("*/manifest.json") if _is_whole(path)},
        {each.step: each.loss for each in events if isinstance(each, Step)},
        {each.step: each.loss for each in events if isinstance(each, Evaluation) and each.loss is not None},
    )  # fmt: skip


def require_part(folder: Path, whole: Bits, least: int = 0) -> None:
    """Check that all runs in a folder can be read, and hold nothing but what the undisturbed run has.

    least: step of the checkpoint that has to be there, or a later one
    """
    runs = list_runs(folder) if folder.is_dir() else []
    assert least == 0 or len(runs) == 1, "the run is gone"
    for run in runs:
        found = bits_of(run)
        for mine, theirs in (
            (found.checkpoints, whole.checkpoints),
            (found.losses, whole.losses),
            (found.validation, whole.validation),
        ):
            assert mine.items() <= theirs.items(), "something else than the undisturbed run has"  # type: ignore[operator]
        newest, problems = newest_valid(run.checkpoints, run.info["id"])
        assert (newest is None) == (not found.checkpoints), problems
        assert newest is None or newest.name == max(found.checkpoints)
        assert max([0, *(int(name.removeprefix("step-")) for name in found.checkpoints)]) >= least
        assert run.state in ("killed", "failed", "stopped", "finished"), run.state
        if run.best:
            assert run.best["checkpoint"] in whole.checkpoints


def require_whole(folder: Path, whole: Bits, *, is_told: bool = True) -> None:
    """Check that the one run in a folder has ended as the undisturbed run did.

    is_told: its report is there too, and nothing of a process that was killed
    """
    (run,) = list_runs(folder)
    found = bits_of(run)
    assert run.state == "finished"
    assert (found.losses, found.validation) == (whole.losses, whole.validation)
    last = max(whole.checkpoints)
    assert found.checkpoints.items() <= whole.checkpoints.items() and last in found.checkpoints
    if not is_told:
        return
    assert not list(run.path.rglob("*.tmp")) and not list(folder.glob(".*.new")), "leftovers"
    assert (run.path / "report" / "report.md").is_file()


def _is_whole(manifest: Path) -> bool:
    """True if all files are as a manifest says, found without etude."""
    try:
        files = json.loads(manifest.read_bytes())["files"]
        return all(
            hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == each["sha256"]
            for name, each in files.items()
        )
    except (OSError, ValueError):
        return False


def _hash(checkpoint: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()

"""Small sweeps for tests: a base recipe, grids, sweep files made of them, and what their runs came to."""

import atexit
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomlkit

from etude.recipe.load import change
from etude.records.events import Attempt, Evaluation, Step, to_json
from etude.records.folder import list_checkpoints
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from etude.sweep import local
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep, load_sweep
from etude.sweep.outcome import Outcome
from etude.sweep.starter import Starter
from tests.processes import wait_for
from tests.recipes import tiny

Axes = dict[str, list[Any]]
FLAT = {"schedule.kind": "constant", "model.dropout": 0.1, "checkpoint.every_steps": 2}


def sweep_values(corpus: Path, grid: Axes, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The values of a sweep of one tiny model over a grid, its best trained once.

    `changes` are of its base recipe.
    """
    base = tiny(corpus, {"evaluate.every_steps": 4, **(changes or {})})
    del base["name"]
    axes = [{"key": key, "values": values} for key, values in grid.items()]
    tier = {"name": "tiny", "models": [{"name": "net"}], "grid": axes}
    return {"name": "tiny-sweep", "recipe": base, "tiers": [tier], "repeats": {"seeds": 0}}


def write_sweep(path: Path, values: dict[str, Any], changes: dict[str, Any] | None = None) -> Path:
    """A sweep file of values with dotted changes."""
    path.write_text(tomlkit.dumps(change(values, changes or {})), encoding="utf-8")
    return path


def make(folder: Path, corpus: Path, grid: Axes, changes: dict[str, Any] | None = None) -> Path:
    """A sweep file of one tiny model over a grid with a constant rate, two trials at once."""
    values = sweep_values(corpus, grid, {**FLAT, **(changes or {})})
    return write_sweep(folder / "sweep.toml", {**values, "resources": {"at_once": 2}})


def execute(path: Path, place: Path, told: list[str] | None = None) -> Outcome:
    """Run a sweep file in a folder."""
    return run_sweep(load_sweep(path), SweepFolder(place), path, (told if told is not None else []).append)


def require_equal(sweep: Sweep, place: Path, alone: Path) -> None:
    """Every trial of a sweep is the run that its recipe gives by itself."""
    states = SweepFolder(place).read(sweep.trials)
    assert set(states) == {trial.name for trial in sweep.trials}
    for trial in sweep.trials:
        assert states[trial.name].is_finished
        assert outcome(states[trial.name].run) == outcome(run_recipe(trial.recipe, Options(runs=alone)).run)


def outcome(run: Run) -> tuple[Any, ...]:
    """The series, last weights and best checkpoint of a run, which are those of any run of its recipe."""
    made = [
        to_json(each.event, 0.0) for each in run.ledger().entries if isinstance(each.event, Step | Evaluation)
    ]
    records = [{key: value for key, value in each.items() if "seconds" not in key} for each in made]
    last = list_checkpoints(run.checkpoints)[-1]
    return records, {path.name: path.read_bytes() for path in last.glob("*.safetensors")}, run.best


def attempts(run: Run) -> list[int]:
    """The step that each attempt of a run began from."""
    return [each.event.from_step for each in run.ledger().entries if isinstance(each.event, Attempt)]


def command_of(process: psutil.Process) -> list[str]:
    """The words of a process's command line; none once it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a process that nobody has waited for yet too
        return []


def starter_of() -> psutil.Process:
    """The starter of this process; just after its start it has no command line yet."""
    children = psutil.Process().children
    (found,) = wait_for(lambda: [each for each in children() if "etude.sweep.starter" in command_of(each)])
    assert isinstance(found, psutil.Process)
    return found


class KeptStarter(Starter):
    """A starter that stays for the next sweep of this process that would start the same one.

    One stays at a time, and only while nothing runs and nothing is asked.
    """

    _kept: "KeptStarter | None" = None
    _key: object = None
    _is_alive = True

    @classmethod
    def open(cls, environment: Mapping[str, str], modules: Sequence[str] = ()) -> "KeptStarter":
        common = {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
        key = common, list(modules), Path.cwd()
        kept, KeptStarter._kept = KeptStarter._kept, None
        if kept is not None and kept._key == key:
            return kept
        if kept is not None:
            kept.end()
        opened = cls(environment, [*modules, "tests.undrawn"])
        opened._key = key
        return opened

    def poll(self, seconds: float = 0.0) -> tuple[dict[str, int], bool]:
        ended, self._is_alive = super().poll(seconds)
        return ended, self._is_alive

    def close(self) -> None:
        if KeptStarter._kept is None and self._is_alive and not self.waiting and not self.running:
            KeptStarter._kept = self
        else:
            self.end()

    def end(self) -> None:
        super().close()


@contextlib.contextmanager
def kept_starters() -> Iterator[None]:
    """Let sweeps that this process runs share a starter with those before, which loads every module once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "Starter", KeptStarter.open)
        yield


@atexit.register
def _end_kept() -> None:
    if KeptStarter._kept is not None:
        KeptStarter._kept.end()

"""Small sweeps for tests: a base recipe, grids, sweep files made of them, and what their runs came to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import tomlkit

from etude.recipe.load import change
from etude.records.events import Attempt, Evaluation, Step, to_json
from etude.records.folder import list_checkpoints
from etude.records.store import Run
from tests.recipes import tiny

Axes = dict[str, list[Any]]


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


def wait_for(condition: Callable[[], Any]) -> Any:
    """Wait until a condition gives something, and return that."""
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen within two minutes")


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

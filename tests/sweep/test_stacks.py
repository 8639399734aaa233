"""The trials that are trained in one process, and why others are not."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from etude.processes import python_command, python_environment
from etude.records import events
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep, load_sweep
from etude.sweep.measure import Measured, measure
from etude.sweep.stacks import build_stacks, stack_notes
from etude.sweep.tree import Tree, build_tree
from tests import bases
from tests.processes import wait_for
from tests.recipes import finetuning
from tests.sweeps import write_sweep

Axes = dict[str, list[Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    bases.write_instructions(folder / "rows.jsonl")
    bases.write_qwen2(folder / "base")
    bases.write_gpt2(folder / "gpt2")
    return folder


def write(home: Path, path: Path, grid: Axes, changes: dict[str, Any] | None = None) -> Path:
    recipe = finetuning(
        home / "rows.jsonl",
        home / "base",
        {"adapter.rank": 4, "train.steps": 6, "evaluate.every_steps": 3, **(changes or {})},
    )
    values = recipe.model_dump(by_alias=True, exclude_unset=True)
    del values["name"]
    axes = [{"key": key, "values": given} for key, given in grid.items()]
    tier = {"name": "tier", "models": [{"name": "net"}], "grid": axes}
    sweep: dict[str, Any] = {
        "name": "stacked", "recipe": values, "tiers": [tier], "resources": {"stack": True},
        "repeats": {"seeds": 0},
    }  # fmt: skip
    return write_sweep(path, sweep)


def built(path: Path) -> tuple[Sweep, Tree, Measured]:
    sweep = load_sweep(path)
    measured = measure(sweep)
    return sweep, build_tree(measured.planned), measured


def losses(run: Run) -> list[float]:
    entries = run.ledger().entries
    return [each.event.loss for each in entries if isinstance(each.event, events.Step | events.Evaluation)]


def require_alike(sweep: Sweep, place: Path, alone: Path, but: Sequence[str] = ()) -> None:
    """Every trial of a sweep has the losses that its recipe gives by itself."""
    states = SweepFolder(place).read(sweep.trials)
    for trial in (trial for trial in sweep.trials if trial.name not in but):
        assert states[trial.name].is_finished
        expected = losses(run_recipe(trial.recipe, Options(runs=alone)).run)
        assert losses(states[trial.name].run) == pytest.approx(expected, rel=1e-5)


def test_what_each_trial_has_for_itself_is_stacked_and_all_else_is_named(home: Path, tmp_path: Path) -> None:
    grid: Axes = {"optim.learning_rate": [1e-3, 2e-3], "adapter.rank": [2, 4]}
    sweep, tree, measured = built(write(home, tmp_path / "one.toml", grid))
    (names,) = build_stacks(tree, measured)
    assert names == [stage.name for stage in tree.stages] and len(names) == 4
    assert stack_notes(sweep, tree, measured) == [
        "1 stack of 4 trials, each with one pass of its frozen base"
    ]
    most = max(measured.memory.values())
    assert [len(each) for each in build_stacks(tree, measured, memory_bytes=2 * most)] == [2, 2]
    assert build_stacks(tree, measured, done=names[1:]) == []
    grid = {"optim.learning_rate": [1e-3, 2e-3], "seed": [1, 2]}
    sweep, tree, measured = built(write(home, tmp_path / "two.toml", grid))
    assert [len(each) for each in build_stacks(tree, measured)] == [2, 2]
    assert "not in one stack: seed differs" in stack_notes(sweep, tree, measured)


def test_trials_that_cannot_share_a_pass_are_named_with_their_key(home: Path, tmp_path: Path) -> None:
    grid: Axes = {"optim.learning_rate": [1e-3, 2e-3]}
    foreign = {"model.from": str(home / "gpt2"), "adapter.targets": ["c_attn"]}
    sweep, tree, measured = built(write(home, tmp_path / "gpt2.toml", grid, foreign))
    assert build_stacks(tree, measured) == []
    (note,) = stack_notes(sweep, tree, measured)
    assert note == "not in a stack: model.from: only decoders that etude computes itself are stacked"
    grid = {"train.steps": [4, 8]}
    sweep, tree, measured = built(
        write(home, tmp_path / "steps.toml", grid, {"schedule.kind": "constant", "schedule.warmup_steps": 1})
    )
    assert build_stacks(tree, measured) == []
    assert "trained by forks" in stack_notes(sweep, tree, measured)[0]


def test_a_stack_is_trained_in_one_process_and_one_that_breaks_leaves_it(home: Path, tmp_path: Path) -> None:
    path = write(home, tmp_path / "sweep.toml", {"optim.learning_rate": [1e-3, 1e39, 4e-3]})
    place, told = tmp_path / "place", list[str]()
    outcome = run_sweep(load_sweep(path), SweepFolder(place), path, told.append)
    (broken,) = outcome.given_up
    assert outcome.finished == 2 and "infinite or NaN" in outcome.given_up[broken]
    starts = [line for line in told if line.startswith("starts")]
    assert len(starts) == 1 and "and 2 on the same base" in starts[0]
    require_alike(load_sweep(path), place, tmp_path / "alone", but=[broken])


def test_a_stack_that_is_killed_goes_on_together(home: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 24, "checkpoint.every_steps": 5, "evaluate.every_steps": 12}
    path = write(home, tmp_path / "sweep.toml", {"optim.learning_rate": [1e-3, 4e-3]}, changes)
    place = tmp_path / "place"
    command = python_command("etude", "sweep", "run", str(path), "--folder", str(place))
    with subprocess.Popen(command, env=python_environment(), stdout=subprocess.DEVNULL) as controller:
        wait_for(lambda: any(place.glob("runs/*/checkpoints/step-000005")), controller)
        pid = int(list_runs(place / "runs")[0].lease["pid"])
        os.kill(pid, signal.SIGKILL)
        assert controller.wait(120) == 0
    sweep = load_sweep(path)
    require_alike(sweep, place, tmp_path / "alone")
    attempts = [
        [each.event.from_step for each in run.ledger().entries if isinstance(each.event, events.Attempt)]
        for run in list_runs(place / "runs")
    ]
    assert len(attempts) == 2 and all(len(each) == 2 for each in attempts)

"""A run whose last step is done ends as finished: what tells of it may fail, and a kill trains
nothing again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude import durable
from etude.errors import StorageError
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Finding, Step
from etude.records.store import Run, find_unfinished, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_labelled
from tests.conftest import Outcome
from tests.processes import in_a_fork

Make = Callable[..., Recipe]


class BreaksAtTheEnd:
    """A view that cannot be closed."""

    def show_plan(self, run: Run, rows: object) -> None: ...

    def acknowledge(self, signal: str) -> None: ...

    def write(self, event: object) -> None: ...

    def close(self) -> None:
        raise RuntimeError("the network is gone")


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def test_a_view_that_fails_to_close_leaves_the_run_finished_and_is_named_once(
    tmp_path: Path, make_recipe: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_recipe(make_recipe({"train.steps": 2}), Options(runs=tmp_path, view=BreaksAtTheEnd())).run
    said = "tracker BreaksAtTheEnd failed when it was closed: RuntimeError: the network is gone"
    assert run.state == "finished" and capfd.readouterr().err.count(said) == 1
    assert (run.path / "log.txt").read_text().count(said) == 1


@pytest.mark.parametrize("broken", ["write_report", "log.txt", "trainer_state.json", "retain"])
def test_what_only_tells_of_a_run_may_fail_at_its_end(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    def no_disk(*_: Any, **__: Any) -> None:
        raise StorageError("cannot write: the disk failed")

    if broken == "write_report":
        monkeypatch.setattr("etude.run.write_report", fail)
    if broken == "log.txt":
        monkeypatch.setattr("etude.records.store.RunWriter.log", no_disk)
    if broken == "trainer_state.json":
        monkeypatch.setattr("etude.records.trackers.TrainerState.write", fail)
    if broken == "retain":
        monkeypatch.setattr("etude.engine.checkpoint.retain", no_disk)
    run = run_recipe(make_recipe({"train.steps": 4}), Options(runs=tmp_path)).run
    assert run.state == "finished"
    found = [finding.what for finding in events(run, Finding)]
    wanted = {"write_report": ["report failed"], "retain": ["an old checkpoint was not removed"]}
    assert found == wanted.get(broken, [])


def test_a_comparison_that_fails_is_named_and_the_run_is_finished(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no baseline")

    monkeypatch.setattr("etude.objectives.classification.tfidf_logistic", fail)
    rows = write_labelled(tmp_path / "rows.jsonl", 60)
    recipe = make_recipe({
        "model": {"kind": "encoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "classification", "data.train": [{"path": str(rows), "label": "label"}],
        "train.steps": 2, "tokenizer.train_vocab_size": 300,
    })  # fmt: skip
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    said = [finding.evidence for finding in events(run, Finding) if finding.what == "comparison failed"]
    assert said == ["ValueError: no baseline"]
    assert run.state == "finished" and (run.path / "report" / "report.md").is_file()


def test_killed_at_any_write_of_its_end_the_same_command_finishes_the_same_run(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"train.steps": 2, "checkpoint.every_steps": 2})
    run_recipe(recipe, Options(runs=tmp_path / "prepared"))
    with durable.faults(durable.FaultPlan()) as plan:
        whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    last_save = max(at for at, call in enumerate(plan.calls) if call == ("rename", "manifest.json"))
    total = len(plan.calls)
    points = [last_save + 2, (last_save + total) // 2, total - 3, total - 1]

    def train(runs: Path, at: int = -1) -> None:
        with durable.faults(durable.FaultPlan(at)):
            run_recipe(recipe, Options(runs=runs))

    for at in points:
        runs = tmp_path / f"killed{at}"
        assert in_a_fork(lambda runs=runs, at=at: train(runs, at)) == -signal.SIGKILL  # type: ignore[misc]
        (run,) = list_runs(runs)
        assert find_unfinished(runs, recipe) is not None, (
            f"the run killed at write {at} of {total} passes for ended"
        )
        assert in_a_fork(lambda runs=runs: train(runs)) == 0  # type: ignore[misc]
        assert [found.path for found in list_runs(runs)] == [run.path]
        assert run.state == "finished" and (run.path / "report" / "report.md").is_file()
        assert [step.step for step in events(run, Step)] == [1, 2]
        assert [attempt.from_step for attempt in events(run, Attempt)] == [0, 2]
        for name in ("model.safetensors", "optimizer.safetensors"):
            ours, theirs = (path / "checkpoints" / "step-000002" / name for path in (run.path, whole.path))
            assert ours.read_bytes() == theirs.read_bytes()


def test_resume_finishes_a_run_that_was_killed_while_it_ended(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Callable[..., Outcome]
) -> None:
    from etude.recipe.load import load_recipe

    recipe = load_recipe(write_recipe({"train.steps": 2}))
    assert (
        in_a_fork(lambda: run_recipe(recipe, Options(runs=tmp_path / "runs"))) == 0
    )  # without the end of a process
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"
    outcome = etude("resume", run.path)
    assert outcome.code == 0, outcome.err
    assert len(events(run, Step)) == 2 and list_runs(tmp_path / "runs") == [run]
    again = etude("resume", run.path)  # by a process that still runs, so it was not killed
    assert again.code == 2 and "is finished" in again.err


def test_a_run_is_left_once_its_command_has_ended(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "etude",
        "train",
        write_recipe({"train.steps": 2}),
        "--runs",
        tmp_path / "runs",
    ]
    done = subprocess.run(
        command, env={**os.environ, "ETUDE_CACHE": str(cache)}, check=False, capture_output=True
    )
    (run,) = list_runs(tmp_path / "runs")
    assert done.returncode == 0 and b"report.md" in done.stderr
    assert run.lease["left"] is True and not run.is_unfinished

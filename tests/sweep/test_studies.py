"""Searches are studies of Optuna in a file: final values alone are values, and the rest is told as it is."""

from pathlib import Path
from typing import Any

import optuna

from etude.sweep.decisions import Choice
from etude.sweep.deliverables import make_deliverables
from etude.sweep.grid import load_sweep
from etude.sweep.search import with_found
from etude.sweep.studies import studies_file
from etude.sweep.write import write_deliverables
from tests.recipes import classification
from tests.sweep.journals import Course, f1_of, write_trial
from tests.sweeps import write_sweep


def searched(folder: Path, more: dict[str, Any] | None = None) -> Path:
    changes = {"train.steps": 60, "evaluate.every_steps": 10}
    base = classification(Path("rows.jsonl"), None, changes).to_dict()
    del base["name"]
    ranges: list[dict[str, Any]] = [
        {"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2, "log": True},
        {"key": "optim.beta2", "values": [0.95, 0.999]},
    ]
    tier = {"name": "tiny", "models": [{"name": "net"}], "search": ranges}
    values = {"name": "found", "recipe": base, "tiers": [tier], "search": {"trials": 9}, **(more or {})}
    return write_sweep(folder / "sweep.toml", values)


def test_ended_trials_have_values_and_others_their_state(tmp_path: Path) -> None:
    rates = (1e-3, 2e-3, 3e-3, 4e-3, 0.5)  # the last was chosen from a wider range
    choices = [
        Choice("net", n, f"net-search{n}", {"optim.learning_rate": rate, "optim.beta2": 0.999})
        for n, rate in enumerate(rates)
    ]
    sweep = with_found(load_sweep(searched(tmp_path)), choices)
    courses = [Course(60), Course(60, ends=30, action="stop"), Course(60, ends=30, action="fail")]
    runs = {
        trial.name: write_trial(tmp_path / "runs", trial, course)
        for trial, course in zip(sweep.trials, courses)
    }
    made = make_deliverables(sweep, lambda trials: {each.name: runs.get(each.name) for each in trials})
    path = tmp_path / "studies.db"
    path.write_bytes(studies_file(made))
    study = optuna.load_study(study_name="found net", storage=f"sqlite:///{path}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "FAIL", "WAITING"]
    best = study.best_trial
    assert best.user_attrs["trial"] == "net-search0" and best.user_attrs["run"] == runs["net-search0"].name
    assert best.value == made.cells[0].value and abs((best.value or 0) - f1_of(courses[0])) < 0.05
    assert best.params == {"optim.learning_rate": 1e-3, "optim.beta2": 0.999}
    assert set(best.intermediate_values) == {10, 20, 30, 40, 50, 60}
    assert study.direction.name == "MAXIMIZE" and study.trials[1].value is None
    assert (write_deliverables(made, tmp_path / "report").parent / "studies.db").exists()


def test_a_trial_that_was_left_at_a_rung_is_pruned_with_its_value_there(tmp_path: Path) -> None:
    choices = [
        Choice("net", n, f"net-search{n}", {"optim.learning_rate": rate, "optim.beta2": 0.999})
        for n, rate in enumerate((1e-3, 2e-3, 3e-3))
    ]
    halving = {"halving": {"steps": [10, 30]}}
    sweep = with_found(load_sweep(searched(tmp_path, halving)), choices)
    courses = [Course(60), Course(60, ends=10, action="stop"), Course(60, ends=20, action="stop")]
    runs = {
        trial.name: write_trial(tmp_path / "runs", trial, course)
        for trial, course in zip(sweep.trials, courses)
    }
    made = make_deliverables(sweep, lambda trials: {each.name: runs.get(each.name) for each in trials})
    (tmp_path / "studies.db").write_bytes(studies_file(made))
    study = optuna.load_study(study_name="found net", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "RUNNING"]
    pruned = study.trials[1]
    assert pruned.value == made.cells[1].value == pruned.intermediate_values[10]
    assert set(pruned.intermediate_values) == {10}

"""A cell holds what the journal of its trial says, and of an unfinished trial no more than that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from etude.recipe.load import recipe_hash
from etude.records.events import Scores
from etude.records.journal import write_journal
from etude.sweep.cells import Cell, cell_text, find_runs_of, read_cells
from etude.sweep.grid import Trial
from tests.sweep.journals import Course, f1_of, sweep_trials, write_trial

COURSE = Course(60)


def read(runs: Path, course: Course) -> Cell:
    (trial, *_) = sweep_trials()
    return read_cells([trial], {trial.name: write_trial(runs, trial, course)})[0]


def test_a_finished_trial_has_its_best_value_its_test_score_and_no_mark(tmp_path: Path) -> None:
    cell = read(tmp_path, COURSE)
    assert cell.state == "finished" and cell.is_final and cell_text(cell, "0.7") == "0.7"
    assert cell.value == pytest.approx(f1_of(COURSE)) and cell.best is not None and cell.best.step == 30
    assert cell.test is not None and cell.test[0] == pytest.approx(f1_of(COURSE))


@pytest.mark.parametrize(
    ("course", "state", "is_final", "text"),
    [
        (Course(60, ends=40), "ended early", True, "0.7 (early, 40 steps)"),
        (Course(60, ends=40, action="stop"), "stopped", False, "0.7 (stopped at 40 steps)"),
        (Course(60, ends=40, action="fail"), "failed", False, "0.7 (failed at 40 steps)"),
    ],
)
def test_a_trial_that_has_not_done_all_its_steps_says_so(
    tmp_path: Path, course: Course, state: str, is_final: bool, text: str
) -> None:
    cell = read(tmp_path, course)
    assert (cell.state, cell.is_final, cell_text(cell, "0.7")) == (state, is_final, text)
    assert (cell.converged is not None) == is_final


def test_a_missing_and_a_damaged_run_are_cells_without_a_value(tmp_path: Path) -> None:
    trial, other, *_ = sweep_trials()
    run = write_trial(tmp_path, other, COURSE)
    (run.path / "run.json").write_text("{}")
    missing, damaged = read_cells([trial, other], {trial.name: None, other.name: run})
    assert (missing.state, missing.value, cell_text(missing, "")) == ("missing", None, "missing")
    assert damaged.state == "damaged" and "run.json" in damaged.problem and damaged.value is None


def test_a_run_of_another_recipe_than_its_hash_says_is_no_result(tmp_path: Path) -> None:
    trial, other, *_ = sweep_trials()
    run = write_trial(tmp_path, other, COURSE)
    info = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**info, "recipe_hash": recipe_hash(trial.recipe)}))
    assert find_runs_of([trial], tmp_path)[trial.name] is not None
    (cell,) = read_cells([trial], find_runs_of([trial], tmp_path))
    assert (cell.state, cell.value) == ("damaged", None)
    assert f"its run {run.name} has another train.steps" in cell.damage


def test_lines_that_are_gone_from_the_middle_of_a_journal_are_damage(tmp_path: Path) -> None:
    whole = read(tmp_path, COURSE)
    assert whole.damage == "" and whole.history is not None
    run = whole.history.run
    lines = (run.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    steps = [place for place, line in enumerate(lines) if b'"type": "step"' in line]
    for gone, said in (
        ([0], "59 of 60 steps, the first that it lacks is 1,"),
        ([7, 59], "58 of 60 steps, the first that it lacks is 8,"),
    ):
        left = [line for place, line in enumerate(lines) if place not in [steps[each] for each in gone]]
        (run.path / "journal.jsonl").write_bytes(b"".join(left))
        (cell,) = read_cells([whole.trial], {whole.trial.name: run})
        assert said in cell.damage


def test_convergence_is_the_first_evaluation_within_one_standard_error_of_the_best(tmp_path: Path) -> None:
    cell = read(tmp_path, COURSE)
    error, source = cell.error
    assert error is not None and source == "predictions of the validation rows"
    within = [each.step for each in cell.history.evaluations  # type: ignore[union-attr]
              if each.metrics["f1"] >= f1_of(COURSE) - error]  # fmt: skip
    assert cell.converged is not None and cell.converged[0].step == within[0]
    # 1 s to read data, a second a step, 2 s for each evaluation of 10 steps.
    assert cell.converged[1] == pytest.approx(1 + within[0] + 2 * within[0] / 10)


def test_the_run_of_a_trial_is_the_finished_one_else_the_newest(tmp_path: Path) -> None:
    trial, other, *_ = sweep_trials()
    done = write_trial(tmp_path, trial, COURSE)
    write_trial(tmp_path, trial, Course(60, ends=40, action="stop"))
    found = find_runs_of([trial, other], tmp_path)
    assert found[trial.name] == done and found[other.name] is None


def test_trials_are_found_by_their_recipe_alone(tmp_path: Path) -> None:
    trial, other, *_ = sweep_trials()
    write_trial(tmp_path, trial, COURSE)
    renamed = Trial("elsewhere", other.tier, other.model, 0, other.values, other.recipe)
    assert find_runs_of([renamed], tmp_path) == {"elsewhere": None}


def test_a_value_without_spread_says_that_one_label_was_predicted(tmp_path: Path) -> None:
    trial, *_ = sweep_trials()
    run = write_trial(tmp_path, trial, COURSE)
    ledger = run.ledger()
    scores = next(each for each in ledger.entries if isinstance(each.event, Scores))
    for confusion, said in (
        ([[120, 0], [80, 0]], "it predicts sound for all rows"),
        ([[120, 80], [0, 0]], "all test rows have one label"),
        ([[100, 20], [30, 50]], ""),
    ):
        changed = scores._replace(event=replace(scores.event, confusion=confusion))
        entries = [changed if each is scores else each for each in ledger.entries]
        write_journal(run.path / "journal.jsonl", entries)
        assert read_cells([trial], {trial.name: run})[0].constant == said

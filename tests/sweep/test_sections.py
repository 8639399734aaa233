"""The report names each state, marks the best and those like it, and is not driven by names."""

from pathlib import Path
from typing import Any

from etude.records.store import Run
from etude.sweep.cells import find_runs_of
from etude.sweep.deliverables import Deliverables, make_deliverables
from etude.sweep.grid import Sweep, Trial
from etude.sweep.repeats import plan_repeats
from etude.sweep.schema import SweepFile
from etude.sweep.sections import result_rows, standing_rows, write_sections
from tests.sweep.journals import Course, sweep_trials, write_trial


def sweep_of(trials: list[Trial], **changes: Any) -> Sweep:
    file = {"name": "small-sweep", "recipe": {}, "tiers": [{"name": "t", "models": [{"name": "a"}]}]}
    return Sweep(SweepFile.model_validate(file | changes), tuple(trials), "", "")


def made_of(runs: Path, courses: list[Course | None], **changes: Any) -> Deliverables:
    trials = sweep_trials(["a", "b"])
    for trial, course in zip(trials, courses):
        if course is not None:
            write_trial(runs, trial, course)
    return make_deliverables(sweep_of(trials, **changes), lambda wanted: find_runs_of(wanted, runs))


def test_each_state_stands_in_its_cell(tmp_path: Path) -> None:
    courses = [
        Course(60, skill=0.8), Course(100, ends=70, action="fail"), None, Course(100, ends=80, skill=0.5),
    ]  # fmt: skip
    text = write_sections(made_of(tmp_path, list(courses)), [])
    rows = [line for line in text.splitlines() if line.startswith("| lr")]
    assert "**" in rows[0] and "failed at 70 steps" in rows[0]
    assert "missing" in rows[1] and "early, 80 steps" in rows[1]
    assert "no trial has ended" in text and "5 missing" in text


def test_a_best_that_is_not_beyond_a_baseline_is_told(tmp_path: Path) -> None:
    """A lead over the other trials is none over a baseline."""
    courses = [Course(60, skill=0.5), None, None, None, Course(60, skill=0.1)]
    weak = write_sections(made_of(tmp_path / "weak", list(courses)), [])
    assert "better than the other beyond the noise of the rows, but not than a baseline." in weak
    assert "better than every other model beyond the noise of the rows; not better than a baseline" in weak
    assert "No trial is better than a baseline beyond the noise of the rows: always yes has 0.6667" in weak
    assert "| always yes: 0.6667 (not beaten) |" in weak
    strong = write_sections(made_of(tmp_path / "strong", [Course(60, skill=0.9)]), [])
    assert "It is better than every baseline beyond the noise" in strong and "not beaten)" not in strong


def test_the_new_seeds_of_the_best_are_told(tmp_path: Path) -> None:
    courses = [Course(60, skill=0.8), Course(100, skill=0.5)]
    made = made_of(tmp_path, list(courses))
    assert "3 new seeds are planned" in write_sections(made, [])
    assert made.overall.best is not None
    for number, repeat in enumerate(plan_repeats(made.overall.best.trial, 3)):
        write_trial(tmp_path, repeat, Course(60, skill=0.7, seed=number + 5))
    again = write_sections(made_of(tmp_path, []), [])
    assert "mean over 3 new seeds" in again and "worse than the value" in again


def test_rows_that_differ_leave_the_sweep_without_a_best(tmp_path: Path) -> None:
    trials = sweep_trials(["a", "b"])
    runs: dict[str, Run | None] = {
        trial.name: write_trial(tmp_path, trial, Course(60, skill=0.7), held_out=name)
        for trial, name in ((trials[0], "v"), (trials[4], "other"))
    }
    made = make_deliverables(sweep_of(trials), lambda wanted: {t.name: runs.get(t.name) for t in wanted})
    assert made.overall.best is None and "no best of all is named" in write_sections(made, [])


def test_names_and_purpose_stay_text(tmp_path: Path) -> None:
    hostile = "x](http://evil) <script>|`\x1b[31m"
    text = write_sections(made_of(tmp_path, [Course(60)], purpose=hostile), [])
    assert "x\\](http\\://evil) \\<script\\>" in text and "\x1b[" not in text


def test_the_terminal_has_the_best_and_a_row_for_each_model(tmp_path: Path) -> None:
    made = made_of(tmp_path, [Course(60, skill=0.8)])
    assert dict(result_rows(made))["best"].startswith("a-0.001-60: 0.8")
    assert [row[0] for row in standing_rows(made)] == ["model", "a", "b"]

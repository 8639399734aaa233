"""The best of many is trained again with new seeds, and the report says how much of its lead stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from etude.records.store import list_runs
from etude.sweep.cells import read_cells
from etude.sweep.decisions import Decisions
from etude.sweep.document import forecast_lines
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.measure import measure
from etude.sweep.repeats import measure_shrinkage, plan_repeats
from etude.sweep.tree import build_tree
from tests.sweep.journals import Course, f1_of, sweep_trials, write_trial
from tests.sweeps import sweep_values, write_sweep


def test_repeats_differ_from_the_trial_in_seed_and_name_alone() -> None:
    trial = sweep_trials()[0]
    repeats = plan_repeats(trial, 3)
    assert len({each.name for each in repeats} | {trial.name}) == 4
    assert trial.recipe.seed not in {each.recipe.seed for each in repeats}
    same = {"name": trial.recipe.name, "seed": trial.recipe.seed}
    assert all(each.recipe.model_copy(update=same) == trial.recipe for each in repeats)


def test_no_new_seed_is_one_of_a_trial_that_was_chosen_from() -> None:
    trial = sweep_trials()[0]
    seed = trial.recipe.seed
    among = [replace(trial, recipe=trial.recipe.model_copy(update={"seed": seed + by})) for by in (0, 1, 3)]
    assert [each.recipe.seed - seed for each in plan_repeats(trial, 3, among)] == [2, 4, 5]


def test_after_the_last_seed_comes_the_first() -> None:
    trial = sweep_trials()[0]
    last = replace(trial, recipe=trial.recipe.model_copy(update={"seed": 2**63 - 1}))
    assert [each.recipe.seed for each in plan_repeats(last, 2)] == [0, 1]


def test_a_long_name_still_makes_a_name_of_a_run() -> None:
    (repeat, *_) = plan_repeats(replace(sweep_trials()[0], name="n" * 57), 3)
    assert len(repeat.name) <= 57 and repeat.name.startswith("net-")


def test_the_shrinkage_is_the_chosen_value_less_the_mean_of_the_new_seeds(tmp_path: Path) -> None:
    trial = sweep_trials()[0]
    chosen = Course(60, skill=0.8)
    (cell,) = read_cells([trial], {trial.name: write_trial(tmp_path, trial, chosen)})
    repeats = plan_repeats(trial, 3)
    assert measure_shrinkage(cell, repeats, {}).mean is None
    again = [Course(60, skill=skill, seed=1) for skill in (0.7, 0.6)]
    runs = {repeat.name: write_trial(tmp_path, repeat, course) for repeat, course in zip(repeats, again)}
    found = measure_shrinkage(cell, repeats, runs)
    mean = sum(map(f1_of, again)) / 2
    assert found.mean == pytest.approx(mean) and found.lost == pytest.approx(f1_of(chosen) - mean)
    assert found.noise is not None and found.noise.low < found.lost < found.noise.high  # type: ignore[operator]
    assert [each.state for each in found.again] == ["finished", "finished", "missing"] and found.same_rows


def test_the_best_is_trained_again_once_all_have_ended_and_stays_the_one_that_was_chosen(
    tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [1e-5, 3e-3]}, {"train.steps": 4})
    path = write_sweep(tmp_path / "sweep.toml", values, {"repeats.seeds": 2, "resources.at_once": 2})
    folder, told = SweepFolder(tmp_path / "place"), list[str]()
    sweep = load_sweep(path)
    ended = run_sweep(sweep, folder, path, told.append)
    assert (ended.finished, ended.trials, ended.given_up) == (4, 4, {})
    assert "best      net-lr0.003; it is trained again with 2 new seeds" in told
    assert Decisions.read(folder.path).best == "net-lr0.003"
    assert "mean over 2 new seeds" in (folder.path / "report" / "report.md").read_text()
    names = sorted(run.name for run in list_runs(folder.runs))
    assert sorted(run.recipe.seed for run in list_runs(folder.runs)) == [17, 17, 18, 19]
    again = list[str]()
    assert run_sweep(sweep, folder, path, again.append).finished == 4
    assert again[0].startswith("4 trials, 4 finished")
    assert sorted(run.name for run in list_runs(folder.runs)) == names
    values["repeats"] = {"seeds": 0}
    path = write_sweep(path, values)
    assert run_sweep(load_sweep(path), folder, path, again.append).trials == 2


def test_a_choice_that_was_made_before_a_kill_is_gone_on_with(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [1e-5, 3e-3]}, {"train.steps": 4})
    folder, sweeps = SweepFolder(tmp_path / "place"), tmp_path / "sweep.toml"
    path = write_sweep(sweeps, values)
    assert run_sweep(load_sweep(path), folder, path, [].append).finished == 2
    Decisions.read(folder.path).choose("net-lr1e-5")  # of which no recipe is written yet
    path = write_sweep(sweeps, values, {"repeats.seeds": 1})
    assert run_sweep(load_sweep(path), folder, path, [].append).finished == 3
    assert "net-lr1e-5-seed18" in {run.recipe.name for run in list_runs(folder.runs)}
    text = (folder.path / "report" / "report.md").read_text()
    assert "`net-lr1e-5` was the best when it was chosen; now another one is." in text


def test_the_plan_counts_the_new_seeds(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [1e-5, 3e-3]}, {"train.steps": 4})
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values, {"repeats.seeds": 3}))
    measured = measure(sweep)
    lines = forecast_lines(sweep, measured, build_tree(measured.planned))
    assert any("more for 3 new seeds of the best" in line for line in lines)

"""The best of many is trained again with new seeds, and the report says how much of its lead stays."""

from pathlib import Path

import pytest

from etude.sweep.cells import read_cells
from etude.sweep.repeats import measure_shrinkage, plan_repeats
from tests.sweep.journals import Course, f1_of, sweep_trials, write_trial


def test_repeats_differ_from_the_trial_in_seed_and_name_alone() -> None:
    trial = sweep_trials()[0]
    repeats = plan_repeats(trial)
    assert len({each.name for each in repeats} | {trial.name}) == 4
    assert trial.recipe.seed not in {each.recipe.seed for each in repeats}
    same = {"name": trial.recipe.name, "seed": trial.recipe.seed}
    assert all(each.recipe.model_copy(update=same) == trial.recipe for each in repeats)


def test_a_long_name_still_makes_a_name_of_a_run() -> None:
    from dataclasses import replace

    (repeat, *_) = plan_repeats(replace(sweep_trials()[0], name="n" * 57))
    assert len(repeat.name) <= 57 and repeat.name.startswith("net-")


def test_the_shrinkage_is_the_chosen_value_less_the_mean_of_the_new_seeds(tmp_path: Path) -> None:
    trial = sweep_trials()[0]
    chosen = Course(60, skill=0.8)
    (cell,) = read_cells([trial], {trial.name: write_trial(tmp_path, trial, chosen)})
    repeats = plan_repeats(trial)
    assert measure_shrinkage(cell, repeats, {}).mean is None
    again = [Course(60, skill=skill, seed=1) for skill in (0.7, 0.6)]
    runs = {repeat.name: write_trial(tmp_path, repeat, course) for repeat, course in zip(repeats, again)}
    found = measure_shrinkage(cell, repeats, runs)
    mean = sum(map(f1_of, again)) / 2
    assert found.mean == pytest.approx(mean) and found.lost == pytest.approx(f1_of(chosen) - mean)
    assert found.noise is not None and found.noise.low < found.lost < found.noise.high  # type: ignore[operator]
    assert [each.state for each in found.again] == ["finished", "finished", "missing"] and found.same_rows

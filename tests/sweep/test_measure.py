"""Lengths are those that the runs will have where the data can be read, and said to be assumed elsewhere."""

from pathlib import Path

from etude.plan import make_plan
from etude.sweep.grid import load_sweep
from etude.sweep.measure import measure
from tests.sweeps import sweep_values, write_sweep


def test_lengths_are_those_of_the_plans(tmp_path: Path, corpus: Path) -> None:
    grid = {"train.global_batch_size": [4, 8], "train.epochs": [1, 2], "optim.learning_rate": [1e-3, 2e-3]}
    values = sweep_values(corpus, grid, {"train.steps": None})
    del values["recipe"]["train"]["steps"]
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    measured = measure(sweep)
    assert [each.trial.name for each in measured.planned] == [trial.name for trial in sweep.trials]
    for each in measured.planned:
        plan = make_plan(each.recipe)
        assert (each.steps, each.steps_per_epoch) == (plan.steps, plan.steps_per_epoch)
    assert not measured.notes and not measured.problems and min(measured.seconds.values()) > 0
    needs = {
        each.recipe.train.global_batch_size: measured.memory[each.trial.name] for each in measured.planned
    }
    assert needs[8] > needs[4] > 0


def test_a_model_that_is_not_there_is_named_and_its_rows_are_assumed(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.epochs": [3]}, {"train.steps": None})
    del values["recipe"]["train"]["steps"]
    del values["recipe"]["model"], values["recipe"]["tokenizer"]
    values["tiers"][0]["models"] = [{"name": "gone", "from": str(tmp_path / "gone")}]
    path = write_sweep(tmp_path / "sweep.toml", values, {"rows": 800})
    measured = measure(load_sweep(path))
    assert measured.planned[0].steps == 3 * 100 and "800 training rows" in measured.notes[0]
    assert "gone" in measured.problems_by_model and not measured.seconds


def test_a_trial_that_is_shorter_than_its_warmup_is_named_and_the_others_are_measured(
    tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"train.epochs": [1, 9]}, {"train.steps": None})
    del values["recipe"]["train"]["steps"]
    values["recipe"]["schedule"] = {"kind": "constant", "warmup_steps": 20}
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    short, long = (trial.name for trial in sweep.trials)
    measured = measure(sweep)
    assert list(measured.problems) == [short] and "warmup_steps is 20" in measured.problems[short]
    assert list(measured.seconds) == list(measured.memory) == [long]

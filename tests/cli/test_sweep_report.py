"""`etude sweep report` writes the results of real runs, and of a sweep that has only begun."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome
from tests.recipes import GOOD
from tests.sweeps import sweep_values, write_sweep


def test_a_real_sweep_of_four_trials_has_its_results(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    grid = {"optim.learning_rate": [1e-3, 3e-3], "train.steps": [8, 12]}
    path = write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, grid, {"schedule.kind": "constant"}))
    folder, out = tmp_path / "sweep", tmp_path / "results"
    nowhere = etude("sweep", "report", path, "--folder", folder, "--out", out)
    assert nowhere.code == 2 and "sweep is no folder of a sweep; give its --folder" in nowhere.err
    assert not folder.exists() and not out.exists()
    folder.mkdir()
    empty = etude("sweep", "report", path, "--folder", folder, "--out", out)
    assert (
        empty.code == 0
        and "4 missing" in empty.out
        and "No trial has ended" in (out / "report.md").read_text()
    )
    assert etude("sweep", "run", path, "--folder", folder).code == 0
    shown = etude("sweep", "report", path, "--folder", folder, "--out", out)
    assert shown.code == 0 and "4 finished" in shown.out and "validation loss" in shown.out
    told = json.loads((out / "report.json").read_text())
    charged = sum(each["device_seconds"] for each in told["trials"])
    assert abs(charged - told["costs"]["device_seconds"]) < 1e-9 * charged
    assert sum(len(part["trials"]) > 1 for part in told["costs"]["parts"]) == 2
    assert told["best"] and all(each["value"] and each["run"] for each in told["trials"])
    assert told == json.loads(etude("sweep", "report", path, "--folder", folder, "--json").out)


def test_a_search_that_was_not_begun_has_no_results(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {})
    values["tiers"][0]["search"] = [{"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2}]
    path = write_sweep(tmp_path / "sweep.toml", {**values, "search": {"trials": 3}})
    (tmp_path / "sweep").mkdir()
    shown = etude("sweep", "report", path, "--folder", tmp_path / "sweep")
    assert shown.code == 2 and "has no trials yet; begin with etude sweep run" in shown.err
    report, elsewhere = tmp_path / "sweep" / "report", tmp_path / "elsewhere"
    elsewhere.mkdir()
    report.parent.mkdir(exist_ok=True)
    report.symlink_to(elsewhere)
    write_sweep(path, sweep_values(corpus, {"train.steps": [4]}))
    refused = etude("sweep", "report", path, "--folder", tmp_path / "sweep")
    assert refused.code == 2 and "report is a link" in refused.err and not list(elsewhere.iterdir())
    write_sweep(path, {**values, "search": {"trials": 3}})
    planned = etude("sweep", "plan", path)
    assert planned.code == 0 and "3 trials: 3 of a search of learning_rate" in planned.out


def test_what_is_no_sweep_no_sweep_folder_or_no_folder_of_runs_is_said_in_one_line(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    path = write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, {"train.steps": [4]}))
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "other"
    recipe.write_text(GOOD)
    folder.mkdir()
    for words, text in (
        (["sweep", "report", recipe], "recipe.toml is a recipe, not a sweep; give a sweep file"),
        (["sweep", "report", folder], "other is no sweep folder, as it has no sweep.toml; give one"),
        (["sweep", "report", tmp_path, "--folder", folder], "is a sweep folder already; leave --folder out"),
        (["sweep", "report", path, "--runs", tmp_path / "nowhere"], "which is no folder; give the one that"),
        (["estimate", path], "sweep.toml is a sweep, not a recipe; give it to etude sweep plan or run"),
        (["estimate", "--from", "a", "--steps", "1" * 400], "less than or equal to 1099511627776"),
    ):
        shown = etude(*words)
        assert shown.code == 2 and text in shown.err and len(shown.err.splitlines()) == 1

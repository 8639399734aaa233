"""A sweep is read from its folder alone, when its file and its base have gone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.load import recipe_hash
from etude.sweep.begun import read_begun
from etude.sweep.decisions import Choice, Decisions
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.search import with_found
from tests.conftest import Outcome
from tests.sweeps import sweep_values, write_sweep

GRID = {"optim.learning_rate": [1e-3, 3e-3], "train.steps": [8, 12]}


def begin(tmp_path: Path, corpus: Path) -> SweepFolder:
    """The folder of a sweep of four trials, none of which was trained."""
    loaded = load_sweep(write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, GRID)))
    folder = SweepFolder(tmp_path / "sweep")
    with folder.hold():
        folder.write(loaded)
    return folder


def test_the_trials_are_those_of_the_file(tmp_path: Path, corpus: Path) -> None:
    folder = begin(tmp_path, corpus)
    loaded = load_sweep(tmp_path / "sweep.toml")
    found = read_begun(folder, Decisions.read(folder.path))
    assert [(each.name, each.tier, each.model, each.values) for each in found.trials] == [
        (each.name, each.tier, each.model, each.values) for each in loaded.trials
    ]
    assert [recipe_hash(each.recipe) for each in found.trials] == [
        recipe_hash(each.recipe) for each in loaded.trials
    ]


def test_trials_that_a_search_chose_are_among_them(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.steps": [8]})
    values["tiers"][0]["search"] = [{"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2}]
    loaded = load_sweep(write_sweep(tmp_path / "s.toml", {**values, "search": {"trials": 3}}))
    folder = SweepFolder(tmp_path / "sweep")
    (study,) = loaded.studies
    with folder.hold():
        folder.write(loaded)
        decided = Decisions.read(folder.path)
        decided.add(Choice(study.name, 0, study.name_of(0), {"optim.learning_rate": 2e-3}))
        loaded = with_found(loaded, decided.found)
        folder.add(loaded.trials)
    found = read_begun(folder, Decisions.read(folder.path))
    assert [(each.name, each.values, each.study) for each in found.trials] == [
        (each.name, each.values, each.study) for each in loaded.trials
    ]


def test_the_report_of_a_folder_is_that_of_its_file(
    tmp_path: Path, corpus: Path, etude: Callable[..., Outcome]
) -> None:
    folder = begin(tmp_path, corpus)
    told = etude("sweep", "report", tmp_path / "sweep.toml", "--folder", folder.path, "--json").out
    (tmp_path / "sweep.toml").unlink()
    assert json.loads(etude("sweep", "report", folder.path, "--json").out) == json.loads(told)


def test_a_file_that_is_a_link_is_not_read_and_a_trial_without_its_recipe_is_left_out_and_named(
    tmp_path: Path, corpus: Path
) -> None:
    folder = begin(tmp_path, corpus)
    first = next(iter(sorted((folder.path / "trials").iterdir())))
    first.unlink()
    first.symlink_to("/etc/passwd")
    second, third, _ = sorted(path for path in (folder.path / "trials").iterdir() if path != first)
    second.write_bytes(third.read_bytes())
    third.write_text("\x00")
    told: list[str] = []
    assert len(read_begun(folder, Decisions.read(folder.path), told.append).trials) == 1
    assert [each.split(":")[0] for each in sorted(told)] == [
        f"trial {path.stem} is left out" for path in (first, second, third)
    ]
    assert f"{second} is the recipe of {third.stem}" in " ".join(told)
    (folder.path / "sweep.toml").unlink()
    (folder.path / "sweep.toml").symlink_to(tmp_path / "sweep.toml")
    with pytest.raises(InputError):
        read_begun(folder, Decisions.read(folder.path))


def test_its_trials_have_the_rungs_of_the_file_that_was_given_last(tmp_path: Path, corpus: Path) -> None:
    folder = begin(tmp_path, corpus)
    assert [each.rungs(1) for each in read_begun(folder, Decisions.read(folder.path)).trials] == [[]] * 4
    values = {**sweep_values(corpus, GRID), "halving": {"steps": [4]}}
    with folder.hold():
        folder.write(load_sweep(write_sweep(tmp_path / "sweep.toml", values)))
    assert [each.rungs(1) for each in read_begun(folder, Decisions.read(folder.path)).trials] == [[4]] * 4

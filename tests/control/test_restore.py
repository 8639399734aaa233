"""A run is made again from its mirror whole, inside its folder, or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from etude.control.copy import Manifest, manifest_name, read_manifest
from etude.control.mirror import Mirror
from etude.control.place import open_place
from etude.control.restore import find_copied, is_mirror, restore
from etude.errors import DamageError, InputError
from etude.recipe.schema import Recipe
from etude.records.ending import State
from etude.records.store import Run
from etude.run import Training
from etude.start import Options

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def mirrored(make_recipe: MakeRecipe, tmp_path: Path) -> Run:
    """A run that was stopped after step 4, with two copies in `mirror`."""
    training = Training(make_recipe(), Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 4:
            break
    (tmp_path / "mirror").mkdir()
    for _ in range(2):
        Mirror(training.run, open_place(str(tmp_path / "mirror"), training.run.name)).close("stopped", 60)
    return training.run


def manifests(tmp_path: Path, run: Run) -> list[Path]:
    return sorted((tmp_path / "mirror" / run.name).glob("*-manifest.json"))


@pytest.mark.parametrize("state", get_args(State))
def test_a_run_comes_back_as_it_ended(mirrored: Run, tmp_path: Path, state: State) -> None:
    Mirror(mirrored, open_place(str(tmp_path / "mirror"), mirrored.name)).close(state, 60)
    again, problems = restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert (again.state, problems) == (state, [])
    assert again.is_unfinished == (state != "finished")


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "linked", "piped", "longer"])
def test_a_damaged_copy_gives_way_to_the_one_before_it(mirrored: Run, tmp_path: Path, damage: str) -> None:
    manifest = read_manifest(manifests(tmp_path, mirrored)[-1].read_bytes(), "m")
    part = (
        tmp_path
        / "mirror"
        / mirrored.name
        / next(name for name in manifest.parts if name.endswith("records"))
    )
    content = part.read_bytes()
    part.unlink()
    if damage == "linked":
        (tmp_path / "elsewhere").write_bytes(content)
        part.symlink_to(tmp_path / "elsewhere")
    elif damage == "piped":
        os.mkfifo(part)
    elif damage != "missing":
        part.write_bytes({"cut": content[:-1], "longer": content + b"x"}.get(damage, content[:-1] + b"\x00"))
    again, problems = restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert len(problems) == 1 and again.state == "stopped"
    with pytest.raises(InputError, match="exists already"):
        restore(str(tmp_path / "mirror" / mirrored.name), tmp_path / "other")


def test_nothing_is_left_where_no_copy_is_whole(mirrored: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "mirror" / mirrored.name).glob("*-records"):
        path.write_bytes(b"")
    with pytest.raises(DamageError, match=r"no copy in .* is whole"):
        restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_the_copy_of_another_run_is_not_taken_for_this_one(mirrored: Run, tmp_path: Path) -> None:
    for path in manifests(tmp_path, mirrored):
        found = read_manifest(path.read_bytes(), "m")
        other = Manifest("tiny-000000", found.step, found.state, found.parts, found.files)
        path.write_bytes(other.to_bytes())
    with pytest.raises(DamageError, match=f"holds run {mirrored.name}"):
        restore(str(tmp_path / "mirror"), tmp_path / "other")


def test_a_copy_that_the_disk_cannot_hold_is_refused_before_it_is_written(
    mirrored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="make room"):
        restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("size", [2**44, 10**18, 2**63, 10**30])
def test_a_copy_that_says_it_is_larger_than_any_disk_gives_way_to_the_one_before_it(
    mirrored: Run, tmp_path: Path, size: int
) -> None:
    found = read_manifest(manifests(tmp_path, mirrored)[1].read_bytes(), "m")
    huge = {name: type(part)(size, part.sha256) for name, part in found.parts.items()}
    files = {**found.files, "log.txt": [(next(iter(huge)), 0, size)]}
    (tmp_path / "mirror" / mirrored.name / manifest_name(8, "0" * 8)).write_bytes(
        Manifest(found.run, found.step, found.state, huge, files).to_bytes()
    )
    again, problems = restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert again.name == mirrored.name and len(problems) == 1


def test_a_mirror_of_several_runs_or_of_none_is_asked_for_one(mirrored: Run, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(mirror / mirrored.name, mirror / "tiny-second")
    with pytest.raises(InputError, match=r"holds 2 runs .*tiny-second"):
        restore(str(mirror), tmp_path / "other")
    for given, said in ((tmp_path / "none", "there is no mirror"), (tmp_path / "runs", "holds no run")):
        with pytest.raises(InputError, match=said):
            restore(str(given), tmp_path / "other")


def test_prepared_data_come_back_with_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    recipe = make_recipe({"run.mirror": str(tmp_path / "mirror"), "run.mirror_data": True})
    for _ in Training(recipe, Options(runs=tmp_path / "runs")):
        break
    files = {path.name: path.read_bytes() for path in (tmp_path / "cache" / "prepared").glob("*/*")}
    shutil.rmtree(tmp_path / "cache")
    restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert (
        {path.name: path.read_bytes() for path in (tmp_path / "cache" / "prepared").glob("*/*")}
        == files
        != {}
    )


def test_a_folder_of_copies_is_a_mirror_and_a_run_or_another_folder_is_none(
    mirrored: Run, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    assert is_mirror(str(mirror)) and is_mirror(str(mirror / mirrored.name)) and is_mirror("s3://bucket/runs")
    for other in (mirrored.path, mirrored.path.parent, tmp_path / "nowhere", "a name"):
        assert not is_mirror(str(other))
    here = find_copied(str(mirror), mirrored.path.parent)
    assert here is not None and here.path == mirrored.path
    assert find_copied(str(mirror), tmp_path / "empty") is None

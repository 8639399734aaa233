"""`etude resume MIRROR` makes a run again where its folder is gone, and goes on to the same bits."""

import shutil
from collections.abc import Callable
from pathlib import Path

from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.run import Training
from etude.start import Options
from tests.conftest import Outcome

FINAL = "checkpoints/step-000012/model.safetensors"


def test_a_run_goes_on_from_its_mirror_and_is_copied_there_again(
    make_recipe: Callable[..., Recipe], tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    unbroken = Training(make_recipe(), Options(runs=tmp_path / "other"))
    assert len(list(unbroken)) == 12
    mirror, runs = tmp_path / "mirror", tmp_path / "runs"
    training = Training(make_recipe({"run.mirror": str(mirror)}), Options(runs=runs))
    for step in training:
        if step.number == 5:
            break
    name = training.run.name
    shutil.rmtree(runs)
    moved = mirror.rename(tmp_path / "drive")  # the disk is mounted elsewhere now
    ended = etude("resume", str(moved), "--runs", str(runs))
    assert ended.code == 0, ended.err
    assert f"{runs / name} was made again from {moved}" in ended.err
    assert (runs / name / FINAL).read_bytes() == (unbroken.run.path / FINAL).read_bytes()
    assert not mirror.exists() and Run(runs / name).state == "finished"
    again = etude("resume", str(moved), "--runs", str(runs))
    assert again.code == 2 and "is here, and goes on as it is" in again.err and "is finished" in again.err
    shutil.rmtree(runs)
    ended = etude("resume", str(moved / name), "--runs", str(runs))
    assert "is finished" in ended.err, "the end was copied too"


def test_a_folder_without_copies_is_named_as_no_run(tmp_path: Path, etude: Callable[..., Outcome]) -> None:
    (tmp_path / "empty").mkdir()
    refused = etude("resume", str(tmp_path / "empty"), "--runs", str(tmp_path / "runs"))
    assert refused.code == 2 and refused.err.count("\n") == 1

"""The log in a folder."""

import os
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.watch.logs.find import find_logs


def make(path: Path, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (10_000 - age, 10_000 - age))
    return path


def test_the_newest_checkpoint_has_the_log_of_a_trainer(tmp_path: Path) -> None:
    make(tmp_path / "checkpoint-1000" / "trainer_state.json", age=5)
    newest = make(tmp_path / "checkpoint-1500" / "trainer_state.json")
    make(tmp_path / "runs" / "Nov27" / "events.out.tfevents.1.host")
    assert find_logs(tmp_path) == [newest]


def test_the_newest_version_of_lightning_is_taken_and_event_files_of_one_folder_together(
    tmp_path: Path,
) -> None:
    make(tmp_path / "lightning_logs" / "version_0" / "events.out.tfevents.1.a", age=9)
    first, second = (
        make(tmp_path / "lightning_logs" / "version_1" / f"events.out.tfevents.{n}.a") for n in (2, 3)
    )
    assert find_logs(tmp_path) == [first, second]
    metrics = make(tmp_path / "lightning_logs" / "version_1" / "metrics.csv")
    assert find_logs(tmp_path) == [metrics]


def test_a_folder_without_a_log_is_refused_and_links_are_not_followed(tmp_path: Path) -> None:
    make(tmp_path / "a" / "model.safetensors")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    make(tmp_path / "b" / "trainer_state.json")
    with pytest.raises(InputError, match=r"holds no log: trainer_state\.json"):
        find_logs(tmp_path / "a")


def test_links_that_lead_nowhere_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "metrics.csv").symlink_to("gone")
    log = make(tmp_path / "log.txt")
    assert find_logs(tmp_path) == [log]

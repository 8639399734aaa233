"""A sweep goes on as it was read, and a file that changes meanwhile is told once."""

from pathlib import Path

from etude.sweep.given import GivenFiles
from etude.sweep.grid import load_sweep
from tests.sweeps import sweep_values, write_sweep


def test_a_file_that_changes_is_told_once(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.steps": [4]})
    base = write_sweep(tmp_path / "base.toml", {**values["recipe"], "name": "base"})
    path, told = write_sweep(tmp_path / "sweep.toml", {**values, "recipe": "base.toml"}), list[str]()
    given = GivenFiles(path, load_sweep(path), told.append)
    given.look(at_once=True)
    assert not told
    base.unlink()
    given.look()  # too soon after the last look
    assert not told
    given.look(at_once=True)
    given.look(at_once=True)
    assert told == [f"{base} has changed since it was read; the trials go on as they were then"]

"""The room of a sweep is that of the checkpoints and records that its trials keep, and is asked for before it starts."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.errors import InputError
from etude.report.summary import size_on_disk
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.measure import measure
from etude.sweep.room import Room, room_parts
from tests.sweeps import sweep_values, write_sweep


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_trials_repeats_and_checkpoints_that_are_written_take_room() -> None:
    rooms = {"a": Room(100, 40), "b": Room(300, 60)}
    assert room_parts(rooms, seeds=2, places=3) == {
        "trials": 400, "new seeds of the best": 600, "checkpoints being written": 120
    }  # fmt: skip
    parts = room_parts(rooms, seeds=0, places=3, there={"a": 100, "b": 290})
    assert (parts["trials"], parts["checkpoints being written"]) == (10, 60)
    assert room_parts(rooms, seeds=0, more=3)["trials"] == 400 + 3 * 200
    assert not any(room_parts(rooms, seeds=0, places=3, there={"a": 100, "b": 300}).values())


def test_what_is_foreseen_is_what_the_runs_take_and_too_little_is_refused_before_any_starts(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"schedule.kind": "constant", "checkpoint.every_steps": 2, "checkpoint.keep": 2}
    values = sweep_values(corpus, {"train.steps": [8, 12]}, changes)
    path, folder = write_sweep(tmp_path / "sweep.toml", values), SweepFolder(tmp_path / "place")
    sweep = load_sweep(path)
    rooms = measure(sweep).rooms
    needed = sum(room_parts(rooms, seeds=0).values())
    usage = shutil.disk_usage

    def limited(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * needed, needed, free))

    limited(needed // 2)
    with pytest.raises(InputError, match=r"the sweep takes up to .* are free; make room"):
        run_sweep(sweep, folder, path, print)
    assert not list(folder.runs.glob("[!.]*"))
    told: list[str] = []
    halted: dict[str, Any] = {"budget.device_hours": 1e-9}
    limited_sweep = load_sweep(write_sweep(tmp_path / "other.toml", values, halted))
    run_sweep(limited_sweep, folder, tmp_path / "other.toml", told.append)
    assert told[0].startswith("note      the sweep takes up to ")
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert run_sweep(sweep, folder, path, print).finished == 2
    for name, state in folder.read(sweep.trials).items():
        saved = [
            sum(file.stat().st_size for file in path.iterdir()) for path in state.run.checkpoints.iterdir()
        ]
        assert abs(rooms[name].checkpoint - saved[-1]) < 0.05 * saved[-1]
        # The newest two and the best, where that is neither of them.
        assert size_on_disk(state.run) < rooms[name].run < 3.2 * saved[-1]
    limited(0)
    assert run_sweep(sweep, folder, path, print).finished == 2  # which needs nothing more

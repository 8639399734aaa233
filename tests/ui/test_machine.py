import json
from pathlib import Path

import pytest

from etude.ui import machine as module
from etude.ui.library import Library
from etude.ui.machine import Machine, devices, stale_runs
from tests.report.runs import attempt, finished_run, new_run, window


def test_the_system_is_told_with_the_room_of_the_runs(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (run.path / "checkpoints" / "step-000040").mkdir()
    (run.path / "checkpoints" / "step-000040" / "weights").write_bytes(b"x" * 1000)
    page = Machine().page(Library([tmp_path]))
    (disk,) = page["disks"]
    assert disk["runs"] == 1
    assert (
        0
        < disk["of_runs"]
        == sum(page["rooms"][run.info["id"]][f"{name}_bytes"] for name in ("checkpoints", "records"))
    )
    assert 0 < disk["free"] < disk["total"]
    assert 0 < page["memory"]["available"] < page["memory"]["total"]
    assert page["stale"] == []
    assert page["not_measured"] == 0
    assert json.dumps(page, allow_nan=False)


def test_devices_are_a_list_also_where_there_are_none() -> None:
    assert all({"name", "used_percent", "memory_bytes", "memory_total"} <= each.keys() for each in devices())


def test_runs_that_were_killed_or_hang_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = finished_run(tmp_path)
    values = json.loads((killed.path / "lease.json").read_text())
    (killed.path / "lease.json").write_text(json.dumps({**values, "state": "running"}))
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    monkeypatch.setattr(module, "_STALE_SECONDS", -1.0)
    found = {each["id"]: each["why"] for each in stale_runs(Library([tmp_path]).runs())}
    assert "ended without a message" in found[killed.info["id"]]
    assert "no sign of life" in found[writer.run.info["id"]]
    writer.close("stopped")

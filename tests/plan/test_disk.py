"""A run that its disks cannot hold at its peak is refused before it begins."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.errors import InputError
from etude.plan import make_plan
from etude.plan.disk import peak_disk, require_disk
from etude.plan.forecast import assume_costs, checkpoint_bytes, forecast
from etude.recipe.schema import Recipe

MakeRecipe = Callable[..., Recipe]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_the_peak_has_the_checkpoint_being_written_the_export_and_the_mirror(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(changes: dict[str, Any]) -> int:
        plan = make_plan(make_recipe(changes))
        return require_disk(plan, forecast(plan, assume_costs(plan, 0.01, 0)), tmp_path / "runs")[0]

    plan = make_plan(make_recipe())
    made = forecast(plan, assume_costs(plan, 0.01, 0))
    peak = made.disk_bytes + checkpoint_bytes(plan) + 4 * plan.parameters["total"]
    assert sum(peak_disk(plan, made).values()) == peak == needed({})
    assert needed({"run.mirror": "s3://bucket/runs"}) == peak
    mirrored = needed({"run.mirror": str(tmp_path / "mirror")})
    assert mirrored == peak + 4 * checkpoint_bytes(plan) + made.disk_bytes // 10
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(mirrored, 1, mirrored - 1))
    assert needed({}) == peak
    with pytest.raises(InputError, match=r"are free; make room, keep fewer with checkpoint.keep"):
        needed({"run.mirror": str(tmp_path / "mirror")})

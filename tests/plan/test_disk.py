"""A run that its disks cannot hold at its peak is refused before it begins."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.errors import InputError
from etude.plan import Plan, make_plan
from etude.plan.disk import claim_disk, find_shortages, peak_disk, require_checkpoints, require_disk
from etude.plan.forecast import assume_costs, checkpoint_bytes, forecast
from etude.recipe.schema import Recipe
from etude.records.events import Finding, Forecast
from etude.records.store import list_runs
from etude.run import run_recipe
from etude.start import Options

MakeRecipe = Callable[..., Recipe]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def of(plan: Plan) -> Forecast:
    return forecast(plan, assume_costs(plan, 0.01, 0))


def let_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * free, free, free))


def test_the_peak_has_the_checkpoint_being_written_the_export_and_the_mirror(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(changes: dict[str, Any]) -> int:
        plan = make_plan(make_recipe(changes))
        require_disk(plan, of(plan), tmp_path / "runs")
        (claim,) = claim_disk(plan, of(plan), tmp_path / "runs")
        return claim.nbytes

    plan = make_plan(make_recipe())
    peak = of(plan).disk_bytes + checkpoint_bytes(plan) + 4 * plan.parameters["total"]
    assert sum(peak_disk(plan, of(plan)).values()) == peak == needed({})
    assert needed({"run.mirror": "s3://bucket/runs"}) == peak
    mirrored = needed({"run.mirror": str(tmp_path / "mirror")})
    assert mirrored == peak + 4 * checkpoint_bytes(plan) + of(plan).disk_bytes // 10
    let_free(monkeypatch, mirrored - 1)
    assert needed({}) == peak
    with pytest.raises(InputError, match=r"are free; make room, keep fewer with checkpoint.keep"):
        needed({"run.mirror": str(tmp_path / "mirror")})


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"checkpoint.every_steps": 4}, 3),
        ({"checkpoint.every_steps": 1}, 4),  # three are kept while one is written
        ({"checkpoint.every_steps": 1, "checkpoint.keep": "all"}, 12),
        ({"checkpoint.every_steps": 1, "evaluate.patience": 1}, 1),
        ({"checkpoint.every_steps": None, "checkpoint.every_minutes": 1}, 1),
    ],
)
def test_a_disk_has_to_hold_the_checkpoints_that_are_made_for_certain(
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    count: int,
) -> None:
    plan = make_plan(make_recipe(changes))
    let_free(monkeypatch, count * checkpoint_bytes(plan))
    require_checkpoints(plan, tmp_path)
    let_free(monkeypatch, count * checkpoint_bytes(plan) - 1)
    with pytest.raises(InputError, match=f"{count} checkpoint"):
        require_checkpoints(plan, tmp_path)


def test_a_run_that_cannot_end_for_want_of_disk_writes_nothing(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    let_free(monkeypatch, checkpoint_bytes(make_plan(recipe)))
    with pytest.raises(InputError, match="make room"):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))
    assert not list((tmp_path / "runs").glob("[!.]*"))


def test_a_run_that_may_fill_the_disk_says_so_before_its_first_step(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"train.steps": 2, "checkpoint.every_steps": 2})
    plan = make_plan(recipe)
    assert not list(find_shortages(plan, of(plan), tmp_path))
    let_free(monkeypatch, of(plan).disk_bytes)
    run_recipe(recipe, Options(runs=tmp_path / "runs"))
    (run,) = list_runs(tmp_path / "runs")
    events = [entry.event for entry in run.ledger().entries]
    (found,) = [each for each in events if isinstance(each, Finding) and each.what == "little disk"]
    assert found.step == 0 and "the run takes up to" in found.evidence and found.evidence.endswith("are free")

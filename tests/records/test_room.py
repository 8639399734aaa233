"""The room of a run is measured and given back, and nothing beside it is touched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.folder import list_checkpoints
from etude.records.room import measure_room, remove
from etude.records.store import Run, hold_run
from etude.run import run_recipe
from etude.start import Options


@pytest.fixture
def run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Run:
    return run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run


def names(run: Run) -> list[str]:
    return [path.name for path in list_checkpoints(run.checkpoints)]


def test_the_best_checkpoint_stays_then_the_record_then_nothing(run: Run) -> None:
    assert run.best is not None and len(names(run)) > 1
    room = measure_room(run)
    assert 0 < room.removable < room.checkpoints and room.records > 0
    assert remove(run) == room.removable
    assert names(run) == [run.best["checkpoint"]] and measure_room(run).removable == 0
    remove(run, weights=True)
    assert names(run) == [] and run.best is None and run.ledger().entries
    remove(run, everything=True)
    assert not run.path.exists()


def test_a_run_that_is_held_or_leads_elsewhere_is_left_alone(run: Run, tmp_path: Path) -> None:
    writer = hold_run(run)
    with pytest.raises(InputError, match="is in use"):
        remove(run, everything=True)
    writer.close("stopped")
    link = tmp_path / "link"
    link.symlink_to(run.path)
    with pytest.raises(InputError, match="is a link"):
        remove(Run(link), everything=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")
    (run.checkpoints / "step-000099").symlink_to(tmp_path / "kept")
    with pytest.raises(InputError, match="is a link"):
        remove(run, everything=True)
    assert (tmp_path / "kept" / "file").exists() and run.path.exists()

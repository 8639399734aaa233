import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.engine.keeper import Keeper
from etude.errors import StorageError
from etude.recipe.schema import Checkpoint, Recipe
from etude.records.events import Event, type_of
from etude.records.store import create_run
from tests.engine.states import make_state, snapshot


def test_a_failure_in_the_thread_is_raised_and_the_next_save_works(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    run = create_run(tmp_path, make_recipe()).run
    told: list[Event] = []
    keeper = Keeper(run, Checkpoint(), told.append)
    with durable.faults(durable.FaultPlan(3, errno.ENOSPC)):
        keeper.save(lambda: snapshot(make_state(), 1))
        with pytest.raises(StorageError):
            keeper.collect(wait=True)
    assert told == [] and run.best is None
    keeper.save(lambda: snapshot(make_state(), 1))
    keeper.collect(wait=True)
    keeper.close()
    assert [type_of(event) for event in told] == ["checkpoint"]
    assert run.best == {"checkpoint": "step-000001", "value": 1.0}


def test_best_json_never_names_a_checkpoint_that_is_not_there(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    run = create_run(tmp_path, make_recipe()).run
    keeper = Keeper(run, Checkpoint(keep=2), lambda event: None)
    for step in range(1, 7):
        keeper.save(lambda step=step: snapshot(make_state(), step))  # type: ignore[misc]
        best = run.best
        assert best is None or (run.checkpoints / best["checkpoint"] / "manifest.json").is_file()
    keeper.collect(wait=True)
    keeper.close()
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "step-000001",
        "step-000005",
        "step-000006",
    ]

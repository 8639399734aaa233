import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError, StorageError
from etude.recipe.schema import Recipe
from etude.records.events import Note, type_of
from etude.records.lease import is_locked
from etude.records.store import (
    append_note,
    create_run,
    find_unfinished,
    list_runs,
    open_run,
)
from tests.records.samples import step

Make = Callable[..., Recipe]


def test_a_new_run_has_its_recipe_and_is_running(tmp_path: Path, make_recipe: Make) -> None:
    writer = create_run(tmp_path / "runs", make_recipe(), recipe_text="# mine\n")
    run = open_run(writer.run.path)
    assert run.recipe == make_recipe()
    assert (run.path / "recipe.toml").read_text() == "# mine\n"
    assert run.state == "running"
    writer.close("finished")
    assert run.state == "finished" and not is_locked(run.path)


def test_a_run_whose_process_died_is_killed_and_can_be_found(tmp_path: Path, make_recipe: Make) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: create_run(tmp_path, make_recipe()) and None)
    child.start()
    child.join()
    (run,) = list_runs(tmp_path)
    assert run.state == "killed"
    found = find_unfinished(tmp_path, make_recipe())
    assert found is not None and found.path == run.path
    assert find_unfinished(tmp_path, make_recipe({"seed": 18})) is None


def test_a_failed_start_leaves_nothing(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe()
    runs = tmp_path / "runs"
    with durable.faults(durable.FaultPlan()) as plan:
        create_run(runs, recipe).close("stopped")
    for at in range(
        2, plan.calls.index(("rename", next(name for call, name in plan.calls if name.startswith("tiny-"))))
    ):
        with durable.faults(durable.FaultPlan(at, 28)), pytest.raises(StorageError):
            create_run(runs, recipe)
        assert len(list_runs(runs)) == 1
        assert [path.name for path in runs.iterdir() if path.name.startswith(".")] == []


def test_runs_are_found_by_id_prefix_and_name_and_near_misses_are_named(
    tmp_path: Path, make_recipe: Make
) -> None:
    first, second = (create_run(tmp_path, make_recipe()) for _ in range(2))
    for writer in (first, second):
        writer.close("finished")
    assert open_run(first.run.name, tmp_path).path == first.run.path
    assert open_run(first.run.name[:-1], tmp_path).path == first.run.path
    assert open_run("tiny", tmp_path).name in (first.run.name, second.run.name)
    with pytest.raises(InputError, match="there is no run nothing; there are tiny-"):
        open_run("nothing", tmp_path)
    for _ in range(3):
        create_run(tmp_path, make_recipe()).close("finished")
    with pytest.raises(InputError, match=r"there are tiny-.* and 2 more; see etude runs"):
        open_run("nothing", tmp_path)
    with pytest.raises(InputError, match=f"no run {first.run.name}x; there are {first.run.name}\\b"):
        open_run(f"{first.run.name}x", tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        open_run("../" + first.run.name, tmp_path)


def test_a_note_can_be_added_while_the_run_is_written(tmp_path: Path, make_recipe: Make) -> None:
    writer = create_run(tmp_path, make_recipe())
    writer.append(step(1))
    append_note(writer.run, Note("lessons", "one"))
    writer.append(step(2))
    writer.close("finished")
    append_note(writer.run, Note("lessons", "two"))
    ledger = writer.run.ledger()
    assert [type_of(entry.event) for entry in ledger.entries] == ["step", "note", "step", "note"]
    assert ledger.damaged == []


def test_a_tracker_that_fails_is_named_once_and_dropped(tmp_path: Path, make_recipe: Make) -> None:
    class Broken:
        def write(self, event: object) -> None:
            raise RuntimeError("no network")

        def close(self) -> None: ...

    writer = create_run(tmp_path, make_recipe())
    writer.trackers = [Broken()]
    writer.append(step(1))
    writer.append(step(2))
    writer.close("finished")
    assert (writer.run.path / "log.txt").read_text().count(
        "tracker Broken failed and is off: RuntimeError: no network"
    ) == 1
    assert len(writer.run.ledger().entries) == 2


def test_a_newer_run_format_is_refused(tmp_path: Path, make_recipe: Make) -> None:
    writer = create_run(tmp_path, make_recipe())
    writer.close("finished")
    durable.write_json(writer.run.path / "run.json", writer.run.info | {"format": 2})
    with pytest.raises(InputError, match="format 2; this etude reads up to 1"):
        open_run(writer.run.path)


def test_runs_of_one_second_are_listed_in_the_order_in_which_they_were_made(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    made = []
    for seed in range(6):
        writer = create_run(tmp_path, make_recipe({"seed": seed}))
        writer.close("stopped")
        made.append(writer.run.name)
    assert [run.name for run in list_runs(tmp_path)] == made

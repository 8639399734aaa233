import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import Note
from etude.records.folder import (
    as_argument,
    checkpoint_name,
    list_checkpoints,
    require_outside_runs,
    require_own,
    step_of,
)
from etude.records.store import Run, append_note, create_run, hold_run, list_runs
from etude.report.write import write_report
from tests.report.runs import finished_run

Make = Callable[..., Recipe]


@pytest.mark.parametrize("step", [0, 1, 999_999, 1_000_000, 12_345_678, 10**17])
def test_a_name_leads_back_to_its_step(step: int) -> None:
    assert step_of(checkpoint_name(step)) == step


@pytest.mark.parametrize(
    "name",
    ["step-²", "step--1", "step-1_0", "step-15", "step-00015", "step-0000015", "step-000015.bak", "step-000015 copy",
     "step-000015\n", " step-000015", "step-00001٥", "step-+00015", "Step-000015", "step-", "step", "", "best",
     "step-" + "9" * 5000],
)  # fmt: skip
def test_what_only_looks_like_a_checkpoint_is_none(name: str) -> None:
    assert step_of(name) is None


def test_checkpoints_are_listed_by_their_number(tmp_path: Path) -> None:
    names = ["step-1000000", "step-999998", "step-999999", "step-10000000", "step-000002"]
    for name in [*names, "step-2", "step-1000000.bak", "step-000003 copy"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "step-000004").mkdir()  # without a manifest
    (tmp_path / "step-000005").symlink_to(tmp_path / "step-000002")
    (tmp_path / "step-000006").write_text("a file")
    found = [path.name for path in list_checkpoints(tmp_path)]
    assert found == ["step-000002", "step-999998", "step-999999", "step-1000000", "step-10000000"]


LINKS = [
    "checkpoints", "checkpoints/step-000004", "report", "predictions", "predictions/task", "tensorboard",
    "wandb", "journal.jsonl", "log.txt", "lease.json", ".lock", "best.json",
    "checkpoints/step-000004/manifest.json", "predictions/test.jsonl", "report/report.md",
    "tensorboard/events",
]  # fmt: skip


@pytest.mark.parametrize("place", LINKS)
def test_a_run_with_a_link_is_neither_held_nor_noted_nor_reported_and_nothing_happens_elsewhere(
    tmp_path: Path, place: str
) -> None:
    run = finished_run(tmp_path / "runs")
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "step-000002").mkdir()
    (canary / "step-000002" / "kept").write_text("kept")
    (canary / "file").write_text("kept")
    path = run.path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(
        canary if not path.suffix and not place.startswith((".", "tensorboard/")) else canary / "file"
    )
    before = {found: found.lstat().st_mtime_ns for found in sorted(canary.rglob("*"))}
    for act in (hold_run, lambda run: append_note(run, Note("next", "x")), write_report):
        with pytest.raises(InputError, match=r"(is a link, through which|is not a plain)"):
            act(run)
    assert {found: found.lstat().st_mtime_ns for found in sorted(canary.rglob("*"))} == before
    assert (canary / "file").read_text() == "kept"


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    os.mkfifo(run.path / "best.json")
    with pytest.raises(InputError, match=r"best.json is not a plain file"):
        require_own(run.path)
    (run.path / "best.json").unlink()
    (run.path / "best.json").mkdir()
    with pytest.raises(InputError, match=r"best.json is not a plain file"):
        require_own(run.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("place", ["log.txt", "checkpoints", "lease.json"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, place: str) -> None:
    run = finished_run(tmp_path)
    os.chown(run.path / place, 1234, 1234)
    with pytest.raises(InputError, match="belongs to another user"):
        hold_run(run)


def test_foreign_things_are_left_alone(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    (run.path / "notes").symlink_to(tmp_path)
    (run.path / "checkpoints" / "step-000015.bak").mkdir()
    (run.path / "checkpoints" / "elsewhere").symlink_to(tmp_path)
    (run.path / "wandb").mkdir()
    (run.path / "wandb" / "debug.log").symlink_to("/dev/null")
    hold_run(run).close("stopped")
    assert (run.path / "checkpoints" / "step-000015.bak").is_dir() and (run.path / "notes").is_symlink()


@pytest.mark.parametrize("place", ["", "new", "checkpoints/new", "report/../deeper/new", "link/new"])
def test_nothing_is_written_into_a_run(tmp_path: Path, place: str) -> None:
    run = finished_run(tmp_path / "runs")
    (tmp_path / "link").symlink_to(run.path / "checkpoints")
    out = tmp_path / place if place.startswith("link") else run.path / place
    with pytest.raises(InputError, match=f"is inside the folder of run {run.name}"):
        require_outside_runs(out)
    require_outside_runs(run.path / ".." / ".." / "out")
    with pytest.raises(InputError, match="is inside the folder of run"):
        create_run(run.path / "runs", run.recipe)


def test_leftovers_of_killed_processes_go_and_those_of_live_ones_stay(
    tmp_path: Path, make_recipe: Make
) -> None:
    runs = tmp_path / "runs"
    run = finished_run(runs)
    if (child := os.fork()) == 0:  # killed within a write, and within the making of a run
        with durable.faults(durable.FaultPlan(1)):
            durable.write_file(run.path / "best.json", b"{}")
        os._exit(0)
    os.waitpid(child, 0)
    if (child := os.fork()) == 0:
        with durable.faults(durable.FaultPlan(8)):
            create_run(runs, make_recipe())
        os._exit(0)
    os.waitpid(child, 0)
    foreign = [run.path / ".mine.tmp", run.path / "a.12.tmp", runs / ".mine.new"]
    foreign[0].touch(), foreign[1].touch(), foreign[2].mkdir()
    assert len(list(run.path.glob(".best.json.*.tmp"))) == 1 and len(list(runs.glob(".tiny-*.new"))) == 1

    held, done = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:  # alive within both

        def pieces():  # type: ignore[no-untyped-def]
            yield b"{}"
            with durable.new_folder(runs / "tiny-ffffff"):
                os.write(held[1], b".")
                os.read(done[0], 1)

        durable.write_file(run.path / "trainer_state.json", pieces())
        os._exit(0)
    os.read(held[0], 1)
    hold_run(run).close("finished")
    create_run(runs, make_recipe()).close("stopped")
    left = [path.name for path in [*run.path.iterdir(), *runs.iterdir()] if path.name.startswith(".")]
    assert sorted(left) == [
        ".lock",
        ".mine.new",
        ".mine.tmp",
        ".tiny-ffffff.new",
        f".trainer_state.json.{child}.tmp",
    ]
    os.write(done[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    assert (run.path / "trainer_state.json").read_text() == "{}" and (runs / "tiny-ffffff").is_dir()
    assert all(path.exists() for path in foreign)
    assert len(list_runs(runs)) == 2


def test_a_folder_that_another_process_makes_is_refused(tmp_path: Path) -> None:
    with (
        durable.new_folder(tmp_path / "out"),
        pytest.raises(InputError, match="is being made by another process"),
        durable.new_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").is_dir() and not (tmp_path / ".out.new").exists()


def test_a_folder_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), durable.new_folder(tmp_path / "out") as hidden:
        durable.write_file(hidden / "a", b"")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_note_on_a_read_only_disk_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path)
    (run.path / ".lock").unlink()
    opened = os.open

    def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    from etude.errors import StorageError

    with pytest.raises(StorageError, match="mounted read-only"):
        append_note(Run(run.path), Note("next", "x"))


def test_a_run_is_named_as_a_command_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("runs/small-1"), tmp_path / "runs" / "small-1"):
        assert as_argument(path) == "small-1"
    assert as_argument(Path("other runs/small-1")) == "'other runs/small-1'"

"""Runs and sweeps of several folders by opaque ids; damaged and foreign folders, said."""

import json
import os
import shutil
from pathlib import Path

import pytest

from etude.errors import MissingError
from etude.ui.library import Library
from tests.report.runs import finished_run, new_run


def test_runs_of_several_folders_stand_by_their_ids_oldest_first(tmp_path: Path) -> None:
    first, second = finished_run(tmp_path / "a"), finished_run(tmp_path / "b")
    library = Library([tmp_path / "b", tmp_path / "a"])
    assert list(library.runs()) == [first.info["id"], second.info["id"]]
    assert library.run(first.info["id"]).path == first.path
    assert library.place(first.info["id"]).folder == str(tmp_path / "a")


def test_a_run_itself_and_a_folder_of_folders_can_be_given(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "project" / "runs")
    assert (
        list(Library([run.path]).runs()) == list(Library([tmp_path / "project"]).runs()) == [run.info["id"]]
    )


def test_a_copied_run_and_a_strange_id_get_ids_of_their_paths(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    shutil.copytree(run.path, tmp_path / "copy")
    other = finished_run(tmp_path)
    info = json.loads((other.path / "run.json").read_text())
    (other.path / "run.json").write_text(json.dumps({**info, "id": "../../etc/passwd"}))
    ids = list(Library([tmp_path]).runs())
    assert len(ids) == len(set(ids)) == 3 and all(len(each) == 12 and each.isalnum() for each in ids)
    assert ids == list(Library([tmp_path]).runs())  # the same at the next start


def test_sweeps_are_found_and_their_runs_say_so(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "rates"
    run = finished_run(sweep / "runs")
    (sweep / "sweep.toml").write_text("name = 'rates'\n")
    library = Library([tmp_path / "sweeps"])
    assert list(library.sweeps()) == ["rates"] and library.sweep("rates").path == sweep
    assert library.place(run.info["id"]).sweep == "rates"
    with pytest.raises(MissingError, match="no sweep other"):
        library.sweep("other")


def test_damaged_folders_are_named_with_their_problem_and_foreign_ones_passed_over(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text('{"format": 1')
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer/run.json").write_text('{"format": 99}')
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/run.json")
    (tmp_path / "link").symlink_to(run.path)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/sweep.toml").write_text("")
    (tmp_path / "sweep/runs").symlink_to(tmp_path.parent / "elsewhere")
    finished_run(tmp_path.parent / "elsewhere")
    library = Library([tmp_path, tmp_path / "nowhere"])
    assert list(library.runs()) == [run.info["id"]]
    assert sorted(library.damaged) == ["broken", "link", "newer", "pipe"]
    assert "is a pipe" in library.damaged["pipe"] and "update etude" in library.damaged["newer"]


def test_a_loop_of_links_and_a_deep_tree_end(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    deep = tmp_path
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    finished_run(deep)
    assert Library([tmp_path]).runs() == {}


def test_the_version_changes_with_a_record_a_new_run_and_the_death_of_a_process(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    library = Library([tmp_path])

    def version() -> str:
        library.forget()
        return library.version

    first = version()
    assert version() == first
    writer.append(*[])
    writer.log("a line for people changes no figure")
    assert version() == first
    with (writer.run.path / "journal.jsonl").open("ab") as journal:
        journal.write(b"\n")
    second = version()
    os.close(writer._lock)  # as a kill does; the lease still says that it goes on
    third = version()
    finished_run(tmp_path)
    assert len({first, second, third, version()}) == 4

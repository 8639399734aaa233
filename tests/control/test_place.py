"""Places that a mirror can have, and those that are refused."""

import errno
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import durable
from etude.control.place import mirror_rows, open_place, require_place
from etude.errors import InputError, MissingError, StorageError
from etude.recipe.schema import Recipe

Make = Callable[..., Recipe]


def addresses(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "mirror"), f"memory://{uuid.uuid4().hex}", f"file://{tmp_path}/by-fsspec"]


@pytest.mark.parametrize("number", range(3))
def test_a_place_keeps_whole_files_by_name(tmp_path: Path, number: int) -> None:
    mirror = addresses(tmp_path)[number]
    open_place(mirror).make()
    place = open_place(mirror, "run")
    place.make()
    place.write("a-part", [b"one ", memoryview(b"two")])
    place.write("another", [])
    assert place.names() == ["a-part", "another"]
    assert b"".join(place.read("a-part")) == b"one two" and b"".join(place.read("a-part", 4)) == b"two"
    place.remove("a-part", is_large=True)
    place.remove("a-part", is_large=False)  # which is gone already
    with pytest.raises(MissingError):
        list(place.read("a-part"))
    assert open_place(mirror).names() == ["run"]


def test_a_place_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path, make_recipe: Make) -> None:
    (tmp_path / "file").write_text("")
    for name in ("runs", "texts", "held out"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "texts")
    refused = {
        str(tmp_path / "file"): "is no folder",
        str(tmp_path / "unmounted" / "runs"): "mount the disk",
        "s3://bucket/runs": "s3fs",
        "nonsense://bucket/runs": "another address that fsspec knows",
        str(tmp_path / "runs"): "is the folder of the runs",
        str(tmp_path / "runs" / "mirror"): "is the folder of the runs, or in it",
        str(tmp_path / "texts"): f"is the data {tmp_path}/texts, which copies of a run would join",
        str(tmp_path / "texts" / "mirror"): "join, or in it; give a folder on another disk",
        str(tmp_path / "link"): "is the data",
        str(tmp_path / "link" / "mirror"): "is the data",
        str(tmp_path / "held out"): f"is the data {tmp_path}/held out",
        str(durable.cache_root()): "which etude fills",
        "/": "is the root of this machine",
        "/tmp/..": "is the root of this machine",
        f"file://{tmp_path}/runs": "by its path",
        f"local://{tmp_path}/runs": "by its path",
        "memory://runs": "by its path",
    }
    sources = {
        "data.train.0.path": str(tmp_path / "texts"),
        "data.test": [{"path": str(tmp_path / "held out")}],
    }
    for mirror, said in refused.items():
        with pytest.raises(InputError, match=said) as caught:
            require_place(make_recipe({**sources, "run.mirror": mirror}), tmp_path / "runs")
        assert "run.mirror" in str(caught.value) and "\n" not in str(caught.value)
    require_place(make_recipe(sources), tmp_path / "runs")
    require_place(make_recipe({**sources, "run.mirror": str(tmp_path / "mirror")}), tmp_path / "runs")


def test_a_mirror_on_the_disk_of_the_run_is_told_as_no_safety(tmp_path: Path, make_recipe: Make) -> None:
    told = {
        str(tmp_path / "mirror"): f"{tmp_path}/mirror, on the disk of the run and lost with it",
        "/proc": "/proc",
        "s3://bucket/runs": "s3://bucket/runs",
    }
    for mirror, words in told.items():
        assert list(mirror_rows(make_recipe({"run.mirror": mirror}), tmp_path)) == [("mirror", words)]
    assert list(mirror_rows(make_recipe(), tmp_path)) == []


def test_nothing_is_written_through_a_link_or_over_a_file(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("link", "target"):
        with pytest.raises(StorageError):
            place.write(name, [b"x"])
    with pytest.raises(StorageError):
        place.remove("link", is_large=True)
    with pytest.raises(InputError):
        list(place.read("link"))
    with pytest.raises(InputError):
        place.write("../above", [b"x"])
    assert (tmp_path / "target").read_text() == "kept"


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    full = durable.FaultPlan(at=2, error=errno.ENOSPC)
    with durable.faults(full), pytest.raises(StorageError, match="No space left"):
        place.write("part", [b"one", b"two"])
    assert place.names() == []

"""A manifest is held against the files that it names."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude import durable
from etude.errors import DamageError, InputError
from etude.records.manifest import check_files, read_manifest


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "step-000004"
    path.mkdir()
    file = durable.write_file(path / "state.json", b"{}")
    manifest = {
        "format": 1,
        "run": "r",
        "step": 4,
        "files": {"state.json": {"size": 2, "sha256": file.sha256}},
    }
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    return path


def test_the_manifest_of_whole_files_is_given(tmp_path: Path) -> None:
    head = {"bytes": 7, "sha256": "a" * 64}
    path = write(tmp_path, journal=head)
    assert check_files(path, read_manifest(path), "r")["journal"] == head


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"step": 5}, "its manifest is that of step 5"),
        ({"run": "other"}, "belongs to run other"),
        ({"files": {}}, "does not name state.json"),
        ({"files": {"../x": {"size": 1, "sha256": ""}}}, "is not what was written"),
        ({"files": {"gone": {"size": 1, "sha256": ""}}}, "gone is missing"),
        ({"journal": {"bytes": 1}}, "manifest.json: "),
        ({"files": 3}, "manifest.json: "),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], wrong: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(DamageError, match=wrong):
        check_files(path, read_manifest(path), "r")


def test_a_newer_format_and_no_manifest_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="format 2"):
        read_manifest(write(tmp_path, format=2))
    with pytest.raises(DamageError, match="has no manifest"):
        read_manifest(tmp_path)

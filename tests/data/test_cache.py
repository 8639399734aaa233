"""Nothing in `$ETUDE_CACHE` leads out of it, whoever wrote it."""

from pathlib import Path

import pytest
import torch

from etude import durable
from etude.engine.checkpoint import Progress, Snapshot, write_checkpoint
from etude.errors import InputError


def test_a_linked_folder_is_not_removed_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("precious")
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(InputError, match="link is a link, where etude keeps a folder of its own; remove it"):
        durable.remove_folder(tmp_path / "link", first="manifest.json")
    assert (outside / "manifest.json").read_text() == "precious" and (tmp_path / "link").is_symlink()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match="file is no folder"):
        durable.remove_folder(tmp_path / "file", first="manifest.json")
    assert (tmp_path / "file").read_text() == "precious"
    (tmp_path / "own" / "manifest.json").mkdir(parents=True)
    (tmp_path / "own" / "link").symlink_to(outside)
    durable.remove_folder(tmp_path / "own", first="manifest.json")
    durable.remove_folder(tmp_path / "none", first="manifest.json")
    assert not (tmp_path / "own").exists() and (outside / "manifest.json").is_file()


@pytest.mark.parametrize("name", ["/abs", "../up", "..", ".", "", "a/b", "a\0b"])
def test_a_name_that_leads_out_of_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no name for a file in"):
        durable.inside(tmp_path, name)
    assert durable.inside(tmp_path, "..tokenizer.json") == tmp_path / "..tokenizer.json"


@pytest.mark.parametrize("name", ["{}/canary", "../canary", "a/../../canary"])
def test_a_checkpoint_writes_no_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    weights, files = {"weight": torch.ones(1)}, {name.format(tmp_path): b"content"}
    snapshot = Snapshot("model.safetensors", weights, {}, Progress("run", 1, "data", {}), files)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="is no name for a file in step-000001"):
        write_checkpoint(tmp_path / "checkpoints", snapshot)
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]

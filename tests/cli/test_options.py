"""Paths, names and recipes as the command line reads them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.options import load, parse_folder, parse_name, parse_new_file, parse_output, require_other
from etude.errors import InputError


def test_folders_and_files_to_write_are_checked_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert parse_folder(str(tmp_path / "new")) == tmp_path / "new"
    assert parse_new_file(str(file)) == file and parse_output(str(file)) == file and parse_name("r@best")
    for parse, given, says in [
        (parse_folder, file, "is not a folder"),
        (parse_new_file, tmp_path, "give a file in a folder that is there"),
        (parse_new_file, tmp_path / "gone" / "page.md", "give a file in a folder that is there"),
        (parse_output, tmp_path / ("x" * 201), "is a longer name than can be written"),
    ]:
        with pytest.raises(InputError, match=says):
            parse(str(given))


def test_no_file_that_a_command_reads_is_written_over(tmp_path: Path) -> None:
    read, link, other = tmp_path / "read", tmp_path / "link", tmp_path / "other"
    read.touch()
    other.touch()
    link.symlink_to(read)
    for out in (read, link, tmp_path / "." / "read"):
        with pytest.raises(InputError, match="is read by this command"):
            require_other(out, other, read)
    require_other(other, read)
    require_other(tmp_path / "new", read, tmp_path / "new")
    require_other(None, read)


def test_among_ranks_the_devices_are_their_number(
    write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe()
    assert load(path, ["train.devices=1"], 2).train.devices == 2
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "lo",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert load(path, None, None).train.devices == 2
    with pytest.raises(InputError, match="--devices is 4, but 2 ranks were started"):
        load(path, None, 4)

"""Files grow by whole lines, and only plain files of this user do."""

import errno
import os
from pathlib import Path

import pytest

from etude import durable
from etude.durable import sync_file, write_at
from etude.errors import InputError, StorageError
from tests.durable.odd_files import not_plain


def test_a_failed_append_is_cut_off_again(tmp_path: Path) -> None:
    appender = durable.Appender(tmp_path / "a")
    appender.append(b"one\n")
    with (
        durable.faults(durable.FaultPlan(0, errno.ENOSPC)),
        pytest.raises(StorageError, match="free some space"),
    ):
        appender.append(b"two\n")
    appender.append(b"three\n")
    assert (tmp_path / "a").read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder", "device"])
def test_nothing_is_appended_to_what_is_no_plain_file_of_its_own(tmp_path: Path, kind: str) -> None:
    path = not_plain(kind, tmp_path)
    with pytest.raises(InputError, match="nothing is written to it"):
        durable.Appender(path)
    if (tmp_path / "target").exists():
        assert (tmp_path / "target").read_bytes() == b"export A=1\nlast line"


def test_a_line_that_another_left_half_written_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = durable.Appender(path)
    file.append(b"one\n")
    with path.open("ab") as other:
        other.write(b"tw")
    file.append(b"three\n")
    file.append(b"four\n")
    assert path.read_bytes() == b"one\ntw\nthree\nfour\n"


@pytest.mark.parametrize("size", [0, 1, 5, 3 << 20])
def test_only_a_last_line_without_its_end_is_cut_off(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\ntwo\n" + b"x" * size)
    file = durable.Appender(path)
    file.cut_torn_line()
    file.append(b"three\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_bytes_are_written_at_a_place_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    write_at(path, b"abcd", 0)
    write_at(path, b"XY", 2)
    write_at(path, b"z", 4)
    sync_file(path)
    assert path.read_bytes() == b"abXYz" and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="not the file that was written"):
        write_at(path, b"x", 6)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match="no plain file"):
        write_at(tmp_path / "link", b"x", 0)
    os.link(path, tmp_path / "second")
    with pytest.raises(InputError, match="not the file"):
        write_at(path, b"x", 0)
    with pytest.raises(StorageError):
        write_at(tmp_path / "nowhere/cells", b"x", 0)
    with pytest.raises(StorageError):
        sync_file(tmp_path / "nowhere")
    assert path.read_bytes() == b"abXYz"

"""Folders go in an order that a kill cannot spoil, and temporary ones with their process."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etude import durable
from etude.errors import StorageError


def test_a_folder_is_known_as_removed_before_its_content_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("manifest.json", "data"):
        (folder / name).write_bytes(b"x")
    with durable.faults(durable.FaultPlan(2, errno.EIO)), pytest.raises(StorageError):
        durable.remove_folder(folder, first="manifest.json")
    assert [file.name for file in folder.iterdir()] == ["data"]


def test_a_temporary_folder_goes_with_its_process_or_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = """
import os, signal, sys, tempfile
from etude.durable import temporary_folder
tempfile.tempdir = sys.argv[1]
with temporary_folder("etude-x-") as folder:
    (folder / "a").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env=environment)
    (left,) = tmp_path.iterdir()
    (tmp_path / "etude-xy").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "etude-x-link").symlink_to(elsewhere)
    with durable.temporary_folder("etude-x-") as first:
        assert not left.exists() and (elsewhere.exists() and (tmp_path / "etude-xy").exists())
        with durable.temporary_folder("etude-x-") as second:
            assert first.is_dir() and second.is_dir() and first != second
    assert not first.exists() and not second.exists()


def test_a_lock_keeps_others_out_and_a_disk_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    ours, theirs = durable.open_lock(path), durable.open_lock(path)
    assert durable.lock(ours, path) and not durable.lock(theirs, path)
    os.close(ours)
    assert durable.lock(theirs, path, wait=True)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"cannot be locked: .* use a folder on another disk"):
        durable.lock(theirs, path)
    os.close(theirs)

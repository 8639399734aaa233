import errno
import os
from pathlib import Path

import pytest

from etude import durable
from etude.errors import StorageError


def points(path: Path) -> int:
    with durable.faults(durable.FaultPlan()) as plan:
        durable.write_file(path, [b"new", b"er"])
    return len(plan.calls)


def test_write_file_returns_size_and_hash_of_what_is_there(tmp_path: Path) -> None:
    written = durable.write_file(tmp_path / "a", iter([b"one", b"two"]))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert written == durable.Written(6, durable.sha256_file(tmp_path / "a"))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("once", [True, False])
def test_a_fault_at_any_call_leaves_the_old_or_the_new_file(tmp_path: Path, error: int, once: bool) -> None:
    path = tmp_path / "a"
    for at in range(points(path)):
        path.write_bytes(b"old")
        with durable.faults(durable.FaultPlan(at, error, once)), pytest.raises(StorageError, match=r"cannot write .*a"):
            durable.write_file(path, [b"new", b"er"])
        assert path.read_bytes() in (b"old", b"newer")
        assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_kill_at_any_call_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    count = points(path)
    for at in range(count):
        path.write_bytes(b"old")
        if (child := os.fork()) == 0:
            with durable.faults(durable.FaultPlan(at)):
                durable.write_file(path, [b"new", b"er"])
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        assert path.read_bytes() in (b"old", b"newer")


def test_a_failed_append_is_cut_off_again(tmp_path: Path) -> None:
    appender = durable.Appender(tmp_path / "a")
    appender.append(b"one\n")
    with durable.faults(durable.FaultPlan(0, errno.ENOSPC)), pytest.raises(StorageError, match="free some space"):
        appender.append(b"two\n")
    appender.append(b"three\n")
    assert (tmp_path / "a").read_bytes() == b"one\nthree\n"


def test_a_real_full_device_is_a_storage_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        durable.Appender(tmp_path / "full").append(b"x")


def test_a_folder_is_known_as_removed_before_its_content_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("manifest.json", "data"):
        (folder / name).write_bytes(b"x")
    with durable.faults(durable.FaultPlan(2, errno.EIO)), pytest.raises(StorageError):
        durable.remove_folder(folder, first="manifest.json")
    assert [file.name for file in folder.iterdir()] == ["data"]

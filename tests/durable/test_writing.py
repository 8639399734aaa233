"""Files are written whole, or not at all, and never through a link."""

import errno
import os
import resource
from pathlib import Path

import pytest

from etude import durable
from etude.errors import StorageError
from tests.durable.odd_files import not_plain


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
        with (
            durable.faults(durable.FaultPlan(at, error, once)),
            pytest.raises(StorageError, match=r"cannot write .*a"),
        ):
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


def test_new_files_are_written_all_or_none_and_again_where_they_are_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for _ in range(2):
        durable.write_new_files({one: b"1", two: b"2"})
    for taken in ({one: b"2"}, {tmp_path / "free": b"", two: b"3"}):
        with pytest.raises(FileExistsError) as refused:
            durable.write_new_files(taken)
        assert refused.value.filename == str(two if two in taken else one)
    (tmp_path / "link").symlink_to(one)
    with pytest.raises(FileExistsError):
        durable.write_new_files({tmp_path / "link": b"1"})
    with pytest.raises(StorageError):
        durable.write_new_files({tmp_path / "three": b"3", tmp_path / "no" / "folder": b""})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "one", "two"]
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")


def test_new_files_go_where_a_disk_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    for _ in range(2):
        durable.write_new_files({tmp_path / "one": b"1"})
    with pytest.raises(FileExistsError, match="one"):
        durable.write_new_files({tmp_path / "one": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_fault_at_any_call_of_new_files_leaves_none_and_a_kill_only_whole_ones(tmp_path: Path) -> None:
    contents = {tmp_path / "one": b"first", tmp_path / "two": b"second"}
    with durable.faults(durable.FaultPlan()) as plan:
        durable.write_new_files(contents)
    for at in range(len(plan.calls)):
        for path in contents:
            path.unlink(missing_ok=True)
        with durable.faults(durable.FaultPlan(at, errno.EIO)), pytest.raises(StorageError):
            durable.write_new_files(contents)
        assert not list(tmp_path.iterdir())
        if (child := os.fork()) == 0:
            with durable.faults(durable.FaultPlan(at)):
                durable.write_new_files(contents)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        assert all(path.read_bytes() == content for path, content in contents.items() if path.exists())
        durable.write_new_files(contents)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents


def test_a_file_that_the_system_lets_grow_no_further_is_a_storage_error_and_keeps_what_it_held(
    tmp_path: Path,
) -> None:
    file = durable.Appender(tmp_path / "a")
    file.append(b"whole\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(StorageError, match="larger than this system allows"):
            file.append(b"too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"whole\n"


def test_a_written_file_takes_the_place_of_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    path = not_plain("link", tmp_path)
    durable.write_file(path, b"new")
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    assert (tmp_path / "target").read_bytes() == b"export A=1\nlast line"

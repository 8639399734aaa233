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


def test_new_files_are_taken_all_or_none_and_given_back_by_a_failure(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with durable.new_files(one, two):
        for taken in ([one], [tmp_path / "free", two]):
            with pytest.raises(FileExistsError), durable.new_files(*taken):
                raise AssertionError
        durable.write_file(one, b"1")
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"") and not (tmp_path / "free").exists()
    with pytest.raises(KeyError), durable.new_files(tmp_path / "free"):
        raise KeyError
    assert not (tmp_path / "free").exists()
    with pytest.raises(StorageError), durable.new_files(tmp_path / "no" / "folder"):
        raise AssertionError


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

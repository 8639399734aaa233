"""A fault plan reaches the system calls of every write, and nothing after its block."""

import errno
from pathlib import Path

import pytest

from etude import durable
from etude.errors import StorageError


@pytest.mark.parametrize("once", [True, False])
def test_the_planned_call_fails_and_the_calls_after_it_as_planned(tmp_path: Path, once: bool) -> None:
    with durable.faults(durable.FaultPlan(at=1, error=errno.EIO, once=once)) as plan:
        with pytest.raises(StorageError, match="the disk failed"):
            durable.write_file(tmp_path / "a", b"x")  # open, then write
        assert [name for name, _ in plan.calls] == ["open", "write"]
        if once:
            durable.write_file(tmp_path / "a", b"x")
        else:
            with pytest.raises(StorageError):
                durable.write_file(tmp_path / "a", b"x")
    durable.write_file(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"y"


def test_an_error_of_the_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    for code, advice in {errno.ENOSPC: "free some space", errno.EROFS: "mount it for writing"}.items():
        with durable.faults(durable.FaultPlan(at=0, error=code)), pytest.raises(StorageError, match=advice):
            durable.make_folder(tmp_path / "new")

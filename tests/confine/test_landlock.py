"""Landlock keeps a process to the paths that it was given."""

from pathlib import Path

import pytest

from etude.confine import kernel, landlock
from tests.confine.apart import outcome

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")


@pytest.mark.parametrize("version", range(1, landlock.version() + 1))
def test_only_what_was_allowed_can_be_read_and_changed(version: int, tmp_path: Path) -> None:
    for name in ("read", "change", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")

    def attempt() -> list[str]:
        kernel.forbid_new_privileges()
        allowed = [(str(tmp_path / "read"), landlock.READ), (str(tmp_path / "change"), landlock.CHANGE)]
        landlock.restrict(allowed, version)
        done = []
        for name in ("read", "change", "other"):
            for mode in ("r", "r+", "x"):
                try:
                    open(tmp_path / name / ("new" if mode == "x" else "file"), mode).close()
                    done.append(f"{name} {mode}")
                except PermissionError:
                    pass
        return done

    assert outcome(attempt) == ["read r", "change r", "change r+", "change x"]


def test_a_path_that_is_not_there_allows_nothing(tmp_path: Path) -> None:
    def attempt() -> bool:
        kernel.forbid_new_privileges()
        landlock.restrict([(str(tmp_path / "none"), landlock.READ)], 7)
        try:
            return bool(list(tmp_path.iterdir()))
        except PermissionError:
            return False

    assert outcome(attempt) is False

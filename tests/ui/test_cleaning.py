"""Columns that nobody looked at for long go, and the cache of columns stays within its bound."""

import os
import time
from pathlib import Path

import pytest

from etude.ui.cleaning import clean_columns
from etude.ui.columns import Columns
from tests.report.runs import finished_run

DAY = 86400.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def columns(cache: Path, digit: str, days: float, size: int = 1000) -> Path:
    """Columns of this user, last used some days ago."""
    folder = cache / "columns" / f"{os.geteuid()}-{digit * 32}"
    folder.mkdir(parents=True)
    (folder / "steps.0").write_bytes(bytes(size))
    (folder / "head.json").write_text("{}")
    os.utime(folder, (time.time() - days * DAY,) * 2)
    return folder


def test_what_is_unused_for_30_days_goes(cache: Path) -> None:
    old, new = columns(cache, "a", 31), columns(cache, "b", 29)
    assert clean_columns() == 1002
    assert not old.exists() and new.exists()


def test_the_longest_unused_go_until_the_rest_is_within_the_bound(cache: Path) -> None:
    first, second, third = (columns(cache, digit, days) for digit, days in (("a", 3), ("b", 2), ("c", 1)))
    assert clean_columns(most_bytes=2500) == 1002
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    assert clean_columns(most_bytes=0) == 2004 and not third.exists()


def test_links_and_what_is_not_ours_stay(cache: Path, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "file").write_text("kept")
    folder = cache / "columns"
    folder.mkdir(parents=True)
    link = folder / f"{os.geteuid()}-{'a' * 32}"
    link.symlink_to(secret)
    other, file = folder / f"{os.geteuid() + 1}-{'b' * 32}", folder / f"{os.geteuid()}-{'c' * 32}"
    other.mkdir()
    file.write_text("no folder")
    assert clean_columns(0, -DAY) == 0
    assert link.is_symlink() and (secret / "file").exists() and other.exists() and file.exists()


def test_columns_are_used_when_they_are_read_and_made_again_when_they_were_removed(
    tmp_path: Path, cache: Path
) -> None:
    run = finished_run(tmp_path / "runs")
    Columns(run).update()
    (folder,) = (cache / "columns").iterdir()
    os.utime(folder, (0, 0))
    again = Columns(run)
    again.update()
    assert time.time() - folder.stat().st_mtime < DAY
    clean_columns(0, -DAY)
    third = Columns(run)
    third.update()
    assert third.steps.count == again.steps.count > 0

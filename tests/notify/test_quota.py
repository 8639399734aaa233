"""Quotas: shared by processes, and kept where they cannot be counted."""

from pathlib import Path

import pytest

from etude.notify.outcome import Room
from etude.notify.quota import Quota


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))


def test_a_quota_is_that_of_all_processes_with_the_same_channel() -> None:
    for _ in range(3):
        assert Quota("one", per_day=3).take(0, None) is None
    assert "per_day (3): it is used up" in str(Quota("one", per_day=3).take(0, None))
    assert "per_month (2)" in str(Quota("one", per_month=2).take(0, None))
    assert Quota("other", per_day=3).take(0, None) is None


@pytest.mark.parametrize(("rank", "kept"), [(0, 0), (1, 5), (2, 20), (3, 20)])
def test_the_last_messages_are_kept_for_what_matters_more(rank: int, kept: int) -> None:
    assert Quota("one").take(rank, Room(kept + 1, 200)) is None
    assert "month's allowance (200)" in str(Quota("one").take(rank, Room(kept, 200)))


def test_a_count_that_is_lost_or_cannot_be_written_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Quota("one", per_day=3).take(0, None) is None
    (tmp_path / "cache" / "notify" / "one.json").write_text('{"2026-01-01": "x"}')
    assert "is damaged" in str(Quota("one", per_day=3).take(0, None))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "file"))
    assert "cannot be counted" in str(Quota("one", per_day=3).take(0, None))
    assert Quota("one").take(0, None) is None  # without a quota nothing is counted


def test_a_flood_ends_after_some_messages_an_hour() -> None:
    quota = Quota("one")
    assert [quota.take(3, None) for _ in range(12)] == [None] * 12
    assert quota.take(3, None) == "12 messages were sent within the hour"
    assert quota.take(0, None) is None

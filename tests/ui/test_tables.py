"""Rows in files and the statistics of their buckets, against numpy on all rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.errors import DamageError
from etude.ui import tables
from etude.ui.tables import COUNT, LEAST, MISSING, MOST, ODD, SUM, Table, is_missing


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    cut=st.floats(0, 1),
    between=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    level=st.integers(1, 5),
)
def test_buckets_are_those_of_the_rows_after_any_appends_and_cuts(
    sizes: list[int],
    cut: float,
    between: tuple[float, float],
    level: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    random = np.random.default_rng(len(sizes))
    table, kept = Table(tmp_path_factory.mktemp("t"), "t", ["x", "y"]), np.zeros((0, 2))
    for number, size in enumerate(sizes):
        rows = np.stack([np.arange(len(kept), len(kept) + size), random.normal(size=size)], 1)
        rows[random.random(size) < 0.2, 1] = random.choice([np.nan, np.inf, -np.inf, MISSING])
        table.append(rows)
        kept = np.concatenate([kept, rows])
        if number % 2:
            table.cut(int(len(kept) * cut))
            kept = kept[: int(len(kept) * cut)]
    table.flush()
    table.check()
    np.testing.assert_array_equal(table.rows(0, table.count), kept)
    low, high = sorted(int(part * len(kept)) for part in between)
    size = 4**level
    found = table.buckets(low, high, level)
    first = low // size * size
    expected = [kept[start : min(start + size, high)] for start in range(first, high, size)]
    assert len(found) == len(expected)
    for bucket, rows in zip(found, expected):
        values = rows[:, 1]
        finite = values[np.isfinite(values)]
        assert bucket[1, COUNT] == len(finite) and bucket[0, COUNT] == len(rows)
        assert bucket[1, ODD] == np.sum(~np.isfinite(values) & ~is_missing(values))
        assert bucket[1, LEAST] == min(finite, default=np.inf)
        assert bucket[1, MOST] == max(finite, default=-np.inf)
        assert bucket[1, SUM] == pytest.approx(finite.sum(), abs=1e-9)


def test_a_place_on_an_ascending_column_is_found(tmp_path: Path) -> None:
    table = Table(tmp_path, "t", ["x", "y"])
    assert table.find(0, 3.0) == 0
    table.append(np.array([[1.0, 0], [3, 0], [3, 0], [7, 0]]))
    table.flush()
    assert [table.find(0, value) for value in (0, 1, 3, 4, 9)] == [0, 0, 1, 3, 4]
    assert [table.find(0, value, right=True) for value in (0, 1, 3, 4, 9)] == [0, 1, 3, 3, 4]


def test_large_appends_do_not_wait_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_FLUSH_ROWS", 10)
    table = Table(tmp_path, "t", ["x"])
    for start in range(0, 100, 4):
        table.append(np.arange(start, start + 4, dtype=float)[:, None])
        assert table.count - table.written < 10
    assert (tmp_path / "t.0").stat().st_size == 8 * table.written


def test_a_shorter_file_is_damage(tmp_path: Path) -> None:
    table = Table(tmp_path, "t", ["x"])
    table.append(np.arange(64, dtype=float)[:, None])
    table.flush()
    table.count = 65
    with pytest.raises(DamageError, match="shorter"):
        table.check()
    with pytest.raises(DamageError, match="shorter"):
        table.rows(60, 65)


def test_a_value_that_was_not_measured_is_told_from_one_that_is_nan() -> None:
    values = np.array([1.0, np.nan, MISSING, float(MISSING), -np.nan, np.inf])
    assert is_missing(values).tolist() == [False, False, True, True, False, False]

"""`etude average` without what it needs."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome


def test_a_folder_to_write_and_runs_are_asked_for(etude: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = etude("average", "one", "two", "--runs", str(tmp_path))
    assert outcome.code == 2 and "--out" in outcome.err
    outcome = etude("average", "one", "two", "--out", str(tmp_path / "out"), "--runs", str(tmp_path))
    assert outcome.code == 2 and "one" in outcome.err and len(outcome.err.strip().splitlines()) == 1

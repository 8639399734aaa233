"""A clock that is set during a run changes no time of it, and readers name its jumps."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.records.clock import EvenTimes
from etude.records.events import Control, Evaluation, Event, Note
from etude.records.journal import Journal, read_journal
from etude.records.ledger import Entry
from tests.records.samples import attempt, step

YEARS = 56 * 365.25 * 86_400
EVALUATION = Evaluation(3, 1.0, 2.7, None, 10, 4.0, True)


def even(*records: tuple[Event, float]) -> tuple[list[float], list[float]]:
    """Even times of records of one attempt, and the jumps."""
    reader = EvenTimes()
    found = [entry.time for event, at in records for entry in reader.take([Entry(event, at, 1)])]
    return found, [jump.seconds for jump in reader.jumps]


def test_a_clock_that_was_set_moves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(attempt(1, 0))
    monkeypatch.setattr("time.time", lambda: 4e9)
    journal.append(step(1))
    journal.close()
    first, last = (entry.time for entry in read_journal(tmp_path / "journal.jsonl").entries)
    assert 0 <= last - first < 600 and last < 3e9


@pytest.mark.parametrize("jump", [YEARS, -YEARS, -100.0])
def test_a_jump_leaves_the_own_time_of_what_comes_after(jump: float) -> None:
    at = 2e9 + jump
    times, jumps = even(
        (attempt(1, 0), 2e9), (step(1), 2e9 + 1), (step(2), at), (step(3), at), (EVALUATION, at + 4)
    )
    assert times == pytest.approx([2e9, 2e9 + 1, 2e9 + 1.5, 2e9 + 2, 2e9 + 6])
    assert jumps == pytest.approx([jump - 1.5])


def test_a_jump_and_its_correction_are_two() -> None:
    times, jumps = even((attempt(1, 0), 2e9), (step(1), 2e9 + 1), (step(2), 3.5e9), (step(3), 2e9 + 2))
    assert times == pytest.approx([2e9, 2e9 + 1, 2e9 + 1.5, 2e9 + 2]) and len(jumps) == 2


def test_a_pause_and_what_people_say_may_take_days() -> None:
    pause, resume = Control(1, "pause", "asked"), Control(1, "resume", "asked")
    late = Note("lessons", "late")
    times, jumps = even(
        (attempt(1, 0), 1e9), (pause, 1e9 + 1), (resume, 1e9 + 1e6), (late, 3e9), (step(1), 1e9 + 1e6 + 1)
    )
    assert jumps == [] and times == [1e9, 1e9 + 1, 1e9 + 1e6, 3e9, 1e9 + 1e6 + 1]


@given(st.lists(st.floats(0, 3600), max_size=20))
def test_times_that_go_on_stay_as_they_are(gaps: list[float]) -> None:
    times = [1e9]
    for gap in gaps:
        times.append(times[-1] + gap)
    entries = [Entry(step(place + 1), at, 1) for place, at in enumerate(times)]
    reader = EvenTimes()
    assert list(reader.take([Entry(attempt(1, 0), 1e9, 1)])) and reader.take(entries) == entries
    assert reader.jumps == []

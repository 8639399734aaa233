"""A restart makes void what training will make again, and nothing that people or the start said."""

from pathlib import Path

import pytest

from etude.records.events import CheckpointSaved, Control, Event, Finding, Note, Rating, Step
from etude.records.journal import Journal, read_journal
from etude.records.ledger import is_void
from tests.records.samples import attempt, step
from tests.report.runs import SCORES, evaluation


def test_a_restart_makes_later_records_rework(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(attempt(1, 0), step(1), step(2), step(3), Note("next", "stays"), attempt(2, 1), step(2))
    journal.close()
    ledger = read_journal(tmp_path / "j")
    assert [
        (entry.event.step, entry.attempt) for entry in ledger.entries if isinstance(entry.event, Step)
    ] == [
        (1, 1),
        (2, 2),
    ]
    assert [entry.event.step for entry in ledger.rework] == [2, 3]
    assert any(isinstance(entry.event, Note) for entry in ledger.entries)


@pytest.mark.parametrize(
    ("event", "from_step", "expected"),
    [
        (step(3), 2, True), (step(2), 2, False), (evaluation(3, 1.0), 2, True), (SCORES, 2, True),
        (CheckpointSaved(3, "step-000003", 1, 0.1, 0.1), 2, True), (Finding(3, "w", "e", "a"), 2, True),
        (evaluation(0, 1.0), 0, True),  # a restart from nothing measures again what it starts from
        (Finding(0, "w", "e", "a"), 0, False), (Control(0, "start", "r"), 0, False),
        (Control(3, "stop", "r"), 2, True), (Rating(3, "p", "t", "r", 1.0), 2, False),
        (Note("next", "x"), 0, False), (attempt(2, 3), 2, False),
    ],
)  # fmt: skip
def test_a_record_beyond_the_step_of_a_restart_is_void(event: Event, from_step: int, expected: bool) -> None:
    assert is_void(event, from_step) is expected

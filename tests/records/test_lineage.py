"""The records of a run up to a moment."""

from etude.records.events import CheckpointSaved, Control, Note
from etude.records.ledger import Entry, Ledger
from etude.records.lineage import FRESH, FirstWeights, records_until
from tests.records.samples import attempt, step


def test_records_end_where_the_step_was_saved_and_leave_out_what_came_between() -> None:
    saved = CheckpointSaved(2, "step-000002", 1, 0.0, 0.0)
    events = [attempt(1, 0), step(1), Note("lessons", "early"), step(2), step(3), saved, step(4),
              Control(4, "stop", "asked"), attempt(2, 4), Note("lessons", "late")]  # fmt: skip
    ledger = Ledger([Entry(event, 1.0, 1) for event in events], [], [])
    assert [entry.event for entry in records_until(ledger, 2)] == [*events[:4], saved]
    unsaved = Ledger([entry for entry in ledger.entries if entry.event is not saved], [], [])
    assert [entry.event for entry in records_until(unsaved, 2)] == [*events[:4], events[-1]]


def test_first_weights_are_known_by_parent_and_hash_and_of_an_older_run_by_its_parent() -> None:
    given = FirstWeights("a", "1")
    assert given.are_of({"parent": "a", "weights": "1"}) and given.are_of({"parent": "a"})
    assert not given.are_of({"parent": "a", "weights": "2"}) and not given.are_of({"parent": "b"})
    assert FRESH.are_of({"parent": None}) and FRESH.are_of({"parent": None, "weights": None})
    assert not FRESH.are_of({"parent": "a", "weights": "1"})

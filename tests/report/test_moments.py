"""A run is read as it was when a file told of it, and a head that its journal never had is told."""

import math
from pathlib import Path

import pytest

from etude.records.events import Note
from etude.records.store import append_note
from etude.report.history import read_history
from etude.report.moments import Moments
from etude.report.sources import head_of
from etude.report.verifying import Verification
from tests.report.runs import attempt, finished_run, new_run, window


def test_a_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    head = head_of(read_history(run))
    append_note(run, Note("lessons", "said later"))
    moments = Moments("f.json", Verification("f"))
    then = moments.run(run, head._asdict())
    assert then.until == head.bytes and len(then.ledger().entries) == len(run.ledger().entries) - 1
    assert moments.went_on == [] and moments.made.deviations == []


def test_a_run_that_had_not_ended_and_went_on_is_named(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    head = head_of(read_history(writer.run))
    writer.append(*window(6, 10))
    writer.close("stopped")
    moments = Moments("f.json", Verification("f"))
    moments.run(writer.run, head._asdict())
    assert moments.went_on == [writer.run.name]


@pytest.mark.parametrize("head", [None, {"bytes": 10, "sha256": "0" * 64}, {"bytes": 10**9, "sha256": "0" * 64},
                                  {"bytes": math.inf}, "x"])  # fmt: skip
def test_a_head_that_no_journal_had_is_told(head: object, tmp_path: Path) -> None:
    made = Verification("f")
    run = finished_run(tmp_path)
    assert Moments("f.json", made).run(run, head).until == (run.path / "journal.jsonl").stat().st_size
    assert [each.kind for each in made.deviations] == ["chain"]

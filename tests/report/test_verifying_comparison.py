"""A comparison follows from the journals of its runs; an edited value or journal is told."""

import json
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.records.events import Note
from etude.records.store import Run, append_note
from etude.report.compare import compare_runs
from etude.report.verifying_comparison import is_comparison, verify_comparison
from tests.report.runs import finished_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    runs = [finished_run(tmp_path / "runs"), finished_run(tmp_path / "runs", {"seed": 7}, targets=90)]
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(compare_runs(runs, 1).to_dict()))
    return file


def test_a_comparison_follows_from_its_runs_also_after_a_note(path: Path) -> None:
    made = verify_comparison(path, path.parent / "runs")
    assert is_comparison(path) and made.deviations == [] and made.open == []
    assert made.examined["values of the comparison"] > 30
    append_note(Run(min((path.parent / "runs").iterdir())), Note("lessons", "said later"))
    assert verify_comparison(path, path.parent / "runs").deviations == []


def test_an_edited_value_is_told_by_its_place(path: Path) -> None:
    values = json.loads(path.read_text())
    name = next(name for name, each in values["results"].items() if None not in each["values"])
    values["results"][name]["values"][0] = -1.0
    path.write_text(json.dumps(values))
    (deviation,) = verify_comparison(path, path.parent / "runs").deviations
    assert deviation.stated == f"results.{name}.values[0] = -1.0"


def test_a_journal_that_was_edited_since_is_told(path: Path) -> None:
    journal = min((path.parent / "runs").iterdir()) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    kinds = {each.kind for each in verify_comparison(path, path.parent / "runs").deviations}
    assert "chain" in kinds


def test_other_json_is_no_comparison(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"runs": 3}')
    assert not is_comparison(file)
    with pytest.raises(InputError, match="no comparison of runs"):
        verify_comparison(file, tmp_path)

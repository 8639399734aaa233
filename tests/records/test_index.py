"""The index beside a journal is a cache that never outlives what it was made of."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Note
from etude.records.index import NAME, read_index, write_index
from etude.records.journal import Journal, read_journal
from etude.records.store import append_note
from etude.report.summary import describe, run_table, summarize
from etude.report.write import write_report
from tests.report.runs import finished_run

KIND, MAKER = dict[str, int], 7


def journal_of(path: Path) -> Path:
    journal = Journal(path / "journal.jsonl")
    journal.append(Note("lessons", "one"))
    journal.close()
    return path / "journal.jsonl"


def test_an_index_holds_for_the_journal_that_it_was_made_of(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    assert read_index(journal, KIND, MAKER) is None
    write_index(journal, read_journal(journal).size, {"a": 1}, MAKER)
    assert read_index(journal, KIND, MAKER) == {"a": 1}
    assert read_index(journal, dict[str, str], MAKER) is None
    write_index(journal, 3, {"a": 2}, MAKER)  # the journal has grown since it was read
    assert read_index(journal, KIND, MAKER) == {"a": 1}
    assert read_index(journal, KIND, MAKER + 1) is None, "other code may make other figures"


@pytest.mark.parametrize("change", ["longer", "tail", "time", "content", "json", "nested", "link", "pipe"])
def test_an_index_that_may_be_of_another_journal_does_not_count(tmp_path: Path, change: str) -> None:
    journal, index = journal_of(tmp_path), tmp_path / NAME
    write_index(journal, read_journal(journal).size, {"a": 1}, MAKER)
    before, content = journal.stat(), journal.read_bytes()
    if change == "longer":
        journal.write_bytes(content + b"\n")
    elif change == "tail":
        other = b"1" if content[-9:-8] == b"0" else b"0"
        journal.write_bytes(content[:-9] + other + content[-8:])
        os.utime(journal, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        os.utime(journal, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "content":
        index.write_text(index.read_text().replace('"a": 1', '"a": 2'))
    elif change == "json":
        index.write_text("{")
    elif change == "nested":
        index.write_text("[" * 100_000)
    else:
        index.rename(tmp_path / "elsewhere") if change == "link" else index.unlink()
        index.symlink_to(tmp_path / "elsewhere") if change == "link" else os.mkfifo(index)
    assert read_index(journal, KIND, MAKER) is None


def test_an_index_that_somebody_else_made_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of(tmp_path)
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "theirs"))
    write_index(journal, read_journal(journal).size, {"a": 1}, MAKER)
    assert read_index(journal, KIND, MAKER) == {"a": 1}
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "ours"))
    assert read_index(journal, KIND, MAKER) is None
    write_index(journal, read_journal(journal).size, {"a": 2}, MAKER)
    assert read_index(journal, KIND, MAKER) == {"a": 2}
    assert (tmp_path / "ours" / "index" / "key").stat().st_mode & 0o077 == 0
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    assert read_index(journal, KIND, MAKER) is None
    write_index(journal, read_journal(journal).size, {"a": 3}, MAKER)
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "ours"))
    assert read_index(journal, KIND, MAKER) == {"a": 2}


def test_a_summary_by_the_index_is_that_of_the_journal(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    plain = summarize(run)
    write_report(run)
    journal = run.path / "journal.jsonl"
    maker = json.loads((run.path / NAME).read_text())["maker"]
    assert read_index(journal, dict[str, list[Any]], maker)
    again = summarize(run)
    assert again == plain and describe(again) == describe(plain) and run_table([again]) == run_table([plain])
    append_note(run, Note("lessons", "late"))
    noted = summarize(run).to_dict()
    assert noted.pop("disk_bytes") > plain["disk_bytes"]
    assert (
        read_index(journal, dict[str, list[Any]], maker) is None and noted.items() <= plain.to_dict().items()
    )


@pytest.mark.parametrize(
    "spoil", [{"tokens": ["many", []]}, {"tokens": [1]}, {"tokens": 1}, {"x": [1, []]}, {}]
)
def test_an_index_of_other_figures_does_not_count(tmp_path: Path, spoil: dict[str, object]) -> None:
    run = finished_run(tmp_path)
    plain = summarize(run)
    journal = run.path / "journal.jsonl"
    write_report(run)
    index = json.loads((run.path / NAME).read_text())
    content = index["content"] | spoil if spoil else {}
    write_index(journal, journal.stat().st_size, content, index["maker"])
    assert summarize(run) == plain

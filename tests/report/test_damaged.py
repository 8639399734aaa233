"""Records with a valid checksum that no run writes, and run folders in which a part is bad."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.engine.loop import Step as LoopStep
from etude.engine.recorder import Recorder
from etude.errors import InputError
from etude.models.cost import Cost
from etude.records.events import Generation, Note, Rating, to_json
from etude.records.journal import read_journal
from etude.records.store import Run, find_unfinished, open_run, read_runs
from etude.report.compare import compare_runs
from etude.report.summary import describe, run_table, summarize, summarize_all
from etude.report.write import write_report
from tests.report.runs import SCORES, attempt, evaluation, finished_run, line, new_run, window

BAD: list[Any] = [
    None, "x", "nan", -1, -1.5, True, 10**400, 2**63, 1e308, float("nan"), float("inf"), [], {}, [None],
    {"x": None}, [{}], {"x": [1]}, {"total": "x"}, {"gpus": 3}, {"train": [1], "a": [1, {}]}, "\ud800",
    "a" * 5000,
]  # fmt: skip


def spoilt() -> Iterator[bytes]:
    """Each record with each of its fields in turn left out, or of another kind."""
    from etude.records.events import CheckpointSaved, Control, DataUsed, Finding

    records = [
        attempt(), *window(1, 1), evaluation(2, 1.0), SCORES, Generation(2, "p", "t", {"max_tokens": 3}),
        Finding(2, "w", "e", "a"), Control(2, "stop", "r"), CheckpointSaved(2, "step-000002", 1, 0.1, 0.1),
        DataUsed("f", {"train": {"samples": 3}}), Note("next", "x"), Rating(2, "p", "t", "r", 1.0),
    ]  # fmt: skip
    for record in records:
        values = to_json(record, 1e9)
        for name in values:
            yield line({key: value for key, value in values.items() if key != name})
            for bad in BAD:
                yield line({**values, name: bad})
        for bad in BAD if "environment" in values else ():
            for name in ("machine", "versions", "git", "base", "own_code", "command", "threads"):
                yield line({**values, "environment": {name: bad}})
        for bad in BAD if values["type"] == "data" else ():
            for summary in (
                {"train": bad},
                {"train": {"samples": bad}},
                {"sources": [{"share": bad}]},
                {"x": bad},
            ):
                yield line({**values, "summary": summary})
        for bad in BAD if values["type"] == "scores" else ():
            yield line({**values, "systems": {"after": {"f1": bad}}, "gains": {}, "capabilities": {}})


def test_no_record_makes_a_reader_fail(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    journal = run.path / "journal.jsonl"
    whole = journal.read_bytes()
    lines = list(spoilt())
    assert len(lines) > 1000
    journal.write_bytes(whole + b"".join(lines))
    read_all(run)
    damaged = set(read_journal(journal).damaged)
    assert len(damaged) > 0.6 * len(lines)
    for first in range(0, len(lines), 60):  # fewer at once, so that one does not hide what another does
        journal.write_bytes(whole + b"".join(lines[first : first + 60]))
        read_all(run, report=False)


def read_all(run: Run, *, report: bool = True) -> None:
    summary = summarize(run)
    describe(summary), run_table([summary])
    json.dumps(summary.to_dict(), allow_nan=False)
    comparison = compare_runs([run, run])
    comparison.rows(), json.dumps(comparison.to_dict(), allow_nan=False)
    if report:
        write_report(run)


@pytest.mark.parametrize(
    "bad",
    [b"[" * 100_000 + b"]" * 100_000, b"{" * 5, b"\xff\xfe", b"", b"null", b"3", b'{"type": []}', b'{"type": "step"}',
     b'{"type": "journal", "format": "x"}', b'{"type": "note", "time": NaN, "section": "next", "text": "x"}',
     b'{"type": "note", "time": 1e300, "section": "next", "text": "x"}', b"x" * (17 << 20)],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named_and_the_rest_is_read(tmp_path: Path, bad: bytes) -> None:
    run = finished_run(tmp_path)
    journal = run.path / "journal.jsonl"
    before = read_journal(journal)
    count = len(journal.read_bytes().splitlines())
    body = bad[:-1] if bad.endswith(b"}") else bad
    with journal.open("ab") as file:
        file.write(body + b', "crc": "%08x"}\n' % zlib.crc32(body))
        file.write(line(to_json(Note("next", "after it"), 1e9)))
    after = read_journal(journal)
    assert after.damaged == [count + 1] and len(after.entries) == len(before.entries) + 1
    assert ("damaged lines", f"{count + 1} of the journal") in describe(summarize(run))


def test_what_is_no_journal_is_refused_before_it_fills_memory(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"\n" * 200_000)
    with pytest.raises(InputError, match="over 100,000 of its lines are damaged"):
        read_journal(tmp_path / "j")
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(50 << 30)
    with pytest.raises(InputError, match="the line at byte 0 has no end"):
        read_journal(tmp_path / "zeros")


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run / "run.json").write_text("{"),
        lambda run: (run / "run.json").write_text("[" * 100_000),
        lambda run: (run / "run.json").write_text('{"format": 9}'),
        lambda run: (run / "run.json").unlink() or os.mkfifo(run / "run.json"),
        lambda run: (run / "run.json").unlink() or (run / "run.json").symlink_to("/dev/zero"),
        lambda run: (run / "journal.jsonl").unlink() or os.mkfifo(run / "journal.jsonl"),
        lambda run: (run / "best.json").write_text('{"checkpoint": "../../x", "value": 1}'),
    ],
)
def test_one_bad_run_is_named_and_the_others_are_listed(
    tmp_path: Path, spoil: Spoil, etude: Callable[..., Any]
) -> None:
    good, bad = finished_run(tmp_path), finished_run(tmp_path)
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    bad.path.rename(tmp_path / "bad")
    spoil(tmp_path / "bad")
    finished_run(tmp_path / "other").path.rename(strange)
    whole, damaged = read_runs(tmp_path)
    summaries, unread = summarize_all(whole)
    assert {summary["name"] for summary in summaries} == {good.name, strange.name} and {
        *damaged,
        *unread,
    } == {"bad"}
    listed = etude("runs", "--runs", tmp_path)
    assert listed.code == 0 and good.name in listed.out and "bad is left out: " in listed.err
    assert len(json.loads(etude("runs", "--runs", tmp_path, "--json").out)) == 2
    assert etude("show", good.name, "--runs", tmp_path).code == 0
    refused = etude("show", "bad", "--runs", tmp_path)
    assert refused.code == 2 and refused.err.startswith("error: ") and len(refused.err.splitlines()) == 1
    assert etude("report", strange, "--runs", tmp_path).code == 0
    with pytest.raises(InputError):
        summarize(open_run("bad", tmp_path))
    assert find_unfinished(tmp_path, good.recipe) is None


def test_a_clock_that_stands_still_divides_by_nothing(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    recorder = Recorder(writer, device=torch.device("cpu"), cost=Cost(10.0, 1.0), matrix_rate=1e9)
    for seconds in (0.0, -0.5):
        for number in (1, 2):
            measured = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0])
            recorder.add(LoopStep(number, 0, 1e-3, 1, seconds, seconds, measured))
        recorder.log()
    recorder.close()
    writer.append(attempt())
    writer.close("finished")
    assert writer.run.ledger().damaged == []
    read_all(writer.run)

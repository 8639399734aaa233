"""The series of a run as columns: those of the ledger of its journal, whatever happened to it or to the cache."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.records.events import Evaluation, Event, Resource, Step
from etude.records.journal import Journal, read_journal
from etude.records.store import Run
from etude.report.summary import summarize
from etude.ui import columns as columns_module
from etude.ui.columns import Columns
from etude.ui.tables import is_missing
from tests.report.runs import attempt, evaluation, finished_run, new_run, window


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def column(columns: Columns, name: str) -> list[float]:
    found = columns.find(name)
    assert found is not None
    table, place = found
    values = table.rows(0, table.count)[:, place]
    return [value for value, gone in zip(values.tolist(), is_missing(values)) if not gone]


def read(run: Run) -> Columns:
    columns = Columns(run)
    columns.update()
    return columns


def check(columns: Columns, run: Run) -> None:
    """Hold all columns against the records that count."""
    ledger = read_journal(run.path / "journal.jsonl")
    steps = [entry.event for entry in ledger.entries if isinstance(entry.event, Step)]
    resources = [entry.event for entry in ledger.entries if isinstance(entry.event, Resource)]
    evaluations = [entry.event for entry in ledger.entries if isinstance(entry.event, Evaluation)]
    assert columns.size == ledger.size and columns.damaged == len(ledger.damaged)
    np.testing.assert_array_equal(column(columns, "train/loss"), [each.loss for each in steps])
    np.testing.assert_array_equal(column(columns, "grad_norm"), [each.grad_norm for each in steps])
    rows = columns.steps.rows(0, columns.steps.count)
    tokens = np.cumsum([each.targets if each.tokens is None else each.tokens for each in steps])
    np.testing.assert_array_equal(rows[:, 0], [each.step for each in steps])
    np.testing.assert_array_equal(rows[:, 1], tokens)
    np.testing.assert_allclose(rows[:, 2], np.cumsum([each.seconds for each in steps]), rtol=1e-12)
    np.testing.assert_array_equal(column(columns, "rss_bytes"), [each.rss_bytes for each in resources])
    np.testing.assert_array_equal(column(columns, "validation/loss"), [each.loss for each in evaluations])
    at = columns.resources.rows(0, columns.resources.count)[:, :2]
    by_step = dict(zip(rows[:, 0].tolist(), tokens.tolist()))
    for step, found in at.tolist():
        assert found == by_step.get(step, found)


def test_the_columns_are_the_records_that_count(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    columns = read(run)
    check(columns, run)
    assert {"train/loss", "validation/loss", "gap", "tokens_per_second", "mfu"} <= set(columns.names())
    assert "gpu_percent" in columns.names() and column(columns, "gpu_percent") == []


def test_the_gap_is_that_of_the_summary(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    assert column(read(run), "gap")[-1] == pytest.approx(summarize(run)["gap"], rel=1e-9)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("steps"), st.integers(1, 40)), st.tuples(st.just("restart"), st.floats(0, 1)),
        st.tuples(st.just("evaluation"), st.integers(0, 3)), st.tuples(st.just("damage"), st.integers(1, 3)),
        st.tuples(st.just("look"), st.booleans()),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=EVENTS)
def test_any_story_of_a_run_gives_the_columns_of_its_ledger(story: list[Any], tmp_path_factory: Any) -> None:
    runs = tmp_path_factory.mktemp("runs")
    writer = new_run(runs)
    path = writer.run.path / "journal.jsonl"
    columns, step, number = Columns(writer.run), 0, 1
    writer.append(attempt())
    for kind, value in story:
        if kind == "steps":
            writer.append(*window(step + 1, step + value, bad=(step + value,) if value % 7 == 3 else ()))
            step += value
        elif kind == "restart":
            step, number = int(step * value), number + 1
            writer.append(attempt(number, step))
        elif kind == "evaluation":
            writer.append(
                Evaluation(step, 2.0, 7.0, None, 10, 1.0, False, {f"m{value}": 0.5, "nan": math.nan})
            )
        elif kind == "damage":
            with path.open("ab") as journal:
                journal.write(b'{"type": "step", "time": 1.0, "step": 3}\n' * value)
        else:
            columns.update()
            columns = columns if value else Columns(writer.run)
    columns.update()
    check(columns, writer.run)
    writer.close("stopped")


def test_a_cache_is_taken_up_by_the_next_server_and_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_SAVE_BYTES", 0)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 30), evaluation(30, 3.0))
    read(writer.run)
    taken: list[int] = []
    whole = Columns._take_block
    monkeypatch.setattr(
        Columns, "_take_block", lambda self, block: (taken.append(len(block)), whole(self, block))[1]
    )
    writer.append(*window(31, 33))
    columns = read(writer.run)
    assert taken == [4]  # three steps and their resources
    check(columns, writer.run)
    writer.append(attempt(2, 20), *window(21, 50))
    check(read(writer.run), writer.run)
    writer.close("stopped")


def _truncate(folder: Path) -> None:
    os.truncate(folder / "steps.0", 100)


def _claim_more(folder: Path) -> None:
    text = (folder / "head.json").read_text()
    (folder / "head.json").write_text(text.replace('"counts": [30', '"counts": [99999999'))


@pytest.mark.parametrize(
    "harm",
    [
        _truncate, _claim_more,
        lambda folder: (folder / "steps.0").unlink(),
        lambda folder: (folder / "head.json").write_text("{"),
        lambda folder: (folder / "head.json").write_text('{"format": 99}'),
        lambda folder: (folder / "head.json").write_text((folder / "head.json").read_text().replace(":", ":-")),
        lambda folder: ((folder / "steps.0").unlink(), (folder / "steps.0").symlink_to("/dev/zero")),
        lambda folder: ((folder / "head.json").unlink(), os.mkfifo(folder / "head.json")),
    ],
)  # fmt: skip
def test_a_damaged_cache_is_made_anew(
    harm: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_SAVE_BYTES", 0)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 30), evaluation(30, 3.0))
    read(writer.run)
    (folder,) = (cache / "columns").iterdir()
    harm(folder)
    columns = Columns(writer.run)
    if (folder / "steps.0").is_symlink():
        with pytest.raises(InputError, match="no plain file"):
            columns.update()
    else:
        columns.update()
        check(columns, writer.run)
    writer.close("stopped")


def test_a_cache_of_another_user_is_never_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "runs")
    read(run)
    (folder,) = (cache / "columns").iterdir()
    me = os.geteuid()
    if me == 0:
        os.chown(folder, 12345, -1)
        with pytest.raises(InputError, match="belongs to another user"):
            read(run)
    monkeypatch.setattr(columns_module.os, "geteuid", lambda: me + 1)
    assert Columns(run)._folder != folder  # nor looked for


def test_a_journal_that_was_replaced_or_cut_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_SAVE_BYTES", 0)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 30))
    writer.close("stopped")
    run, path = writer.run, writer.run.path / "journal.jsonl"
    columns = read(run)
    before = columns.generation
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:20]))
    columns.update()
    assert columns.generation > before
    check(columns, run)
    path.unlink()
    journal = Journal(path)
    journal.append(attempt(), *window(1, 60, targets=7))
    journal.close()
    columns.update()
    check(columns, run)
    check(read(run), run)


def test_a_run_without_a_journal_or_with_a_torn_line_has_what_there_is(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 5))
    with (writer.run.path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"type": "step", "ti')
    assert len(column(read(writer.run), "train/loss")) == 5
    writer.close("stopped")
    (writer.run.path / "journal.jsonl").unlink()
    assert read(writer.run).names() == []


def test_nothing_is_written_into_the_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    before = sorted((path, path.lstat().st_mtime_ns) for path in run.path.rglob("*"))
    read(run)
    assert before == sorted((path, path.lstat().st_mtime_ns) for path in run.path.rglob("*"))


def test_metrics_beyond_the_most_are_named_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "_MOST_METRICS", 12)
    writer = new_run(tmp_path / "runs")
    metrics = {f"m{index:02d}": float(index) for index in range(6)}
    events: list[Event] = [attempt(), Evaluation(0, 2.0, 7.0, None, 10, 1.0, False, metrics)]
    writer.append(*events, Evaluation(5, 2.0, 7.0, None, 10, 1.0, False, metrics))
    columns = read(writer.run)
    assert columns.left_out == ["validation/m03", "validation/m04", "validation/m05"]
    assert column(columns, "validation/m02") == [2.0, 2.0]
    writer.close("stopped")


def test_a_copied_run_is_another_cache(tmp_path: Path, cache: Path) -> None:
    run = finished_run(tmp_path / "runs")
    shutil.copytree(run.path, tmp_path / "runs/copy")
    read(run)
    read(Run(tmp_path / "runs/copy"))
    assert len(list((cache / "columns").iterdir())) == 2


def test_a_long_journal_is_read_in_parts_that_follow_on_each_other(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(steps=2000))
    for first in range(1, 2001, 10):
        writer.append(*window(first, first + 9))
    columns, parts = Columns(writer.run), list[float]()
    while not parts or parts[-1] < 1:
        columns.update(0.0)
        parts.append(columns.part)
    assert len(parts) > 3 and parts == sorted(parts)
    check(columns, writer.run)
    writer.close("stopped")

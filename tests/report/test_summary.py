import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from etude.records.events import Control, Finding, Note
from etude.records.store import append_note
from etude.report.history import read_history
from etude.report.summary import describe, next_commands, run_table, summarize
from tests.report.runs import attempt, evaluation, finished_run, loss_at, new_run, window


def test_figures_are_arithmetic_on_the_journal(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    summary = summarize(run)
    lines = [json.loads(line) for line in (run.path / "journal.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["type"] == "step"]
    last = steps[-5:]
    assert summary["tokens"] == sum(step["targets"] for step in steps)
    assert summary["last_loss"] == pytest.approx(
        sum(step["loss"] * step["targets"] for step in last) / sum(step["targets"] for step in last)
    )
    assert summary["tokens_per_second"] == pytest.approx(
        summary["tokens"] / sum(step["seconds"] for step in steps)
    )
    assert summary["wait_ratio"] == pytest.approx(0.1)
    assert summary["mfu"] == pytest.approx(0.25)
    assert summary["peak_rss_bytes"] == 10**9 + 40
    assert (summary["step"], summary["steps"], summary["epochs"]) == (40, 40, 2.0)
    assert (summary["best_validation_step"], summary["best_validation_loss"]) == (20, 2.5)
    assert summary["last_loss"] is not None
    assert summary["gap"] == pytest.approx(2.6 - summary["last_loss"])
    assert (summary["status"], summary["reason"]) == ("finished", "the last step is done")
    assert dict(describe(summary))["status"] == "finished"


def test_rework_is_named_apart_and_counts_as_time_only(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5), *window(6, 10))
    writer.append(attempt(2, 5), *window(6, 10), Control(10, "stop", "SIGTERM was received"))
    summary = summarize(writer.run)
    assert (summary["step"], summary["attempts"], summary["rework_steps"]) == (10, 2, 5)
    assert (summary["rework_seconds"], summary["training_seconds"]) == (2.5, 7.5)
    assert summary["tokens"] == sum(100 + n for n in range(1, 11))
    assert (summary["status"], summary["reason"]) == ("stopped", "SIGTERM was received")
    writer.close("stopped")


def test_a_run_without_a_last_word_is_as_lease_and_lock_say(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), Control(3, "stop", "earlier"), attempt(2, 0))
    assert summarize(writer.run)["status"] == "running"
    os.close(writer._lock)
    assert summarize(writer.run)["status"] == "killed"


def test_a_run_killed_before_its_journal_is_summarised(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.close("stopped")
    (writer.run.path / "journal.jsonl").unlink()
    summary = summarize(writer.run)
    assert (summary["step"], summary["tokens"], summary["last_loss"]) == (0, 0, None)
    assert describe(summary) and run_table([summary])


def test_non_finite_figures_are_valid_json(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(
        attempt(), *window(1, 5, bad=(1, 2, 3, 4, 5)), evaluation(5, math.nan), *window(6, 10, bad=(7,))
    )
    writer.close("failed")
    summary = summarize(writer.run)
    assert summary["skipped_steps"] == 6 and summary["best_validation_loss"] is None
    data = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert data["first_loss"] == "nan"
    kept = [n for n in range(6, 11) if n != 7]
    expected = sum(loss_at(n) * (100 + n) for n in kept) / sum(100 + n for n in kept)
    assert data["last_loss"] == data["least_loss"] == pytest.approx(expected)


def test_a_note_of_days_later_adds_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path)
    before = summarize(run)["wall_seconds"]
    monkeypatch.setattr("time.time", lambda: 4e9)
    append_note(run, Note("lessons", "late"))
    assert summarize(run)["wall_seconds"] == before


def test_damaged_lines_are_reported(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    path = run.path / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b'"loss": ', b'"loss": 9')
    path.write_bytes(b"\n".join(lines))
    summary = summarize(run)
    assert summary["damaged_lines"] == [5]
    assert ("damaged lines", "5 of the journal") in describe(summary)


def test_a_run_whose_watch_knows_a_better_recipe_is_told_so_first(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    finding = Finding(8, "it rises", "2 to 3", "", changes={"optim.learning_rate": 1e-4}, kind="rises")
    writer.append(attempt(), *window(1, 10), replace(finding, severity="info"))
    assert "improve" not in next_commands(read_history(writer.run))[0]
    writer.append(finding)
    assert next_commands(read_history(writer.run))[0].startswith("etude improve ")
    writer.close("finished")

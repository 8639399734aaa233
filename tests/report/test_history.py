"""The history of a run, from records whose times and groups are known by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from etude.records.events import DataUsed, Evaluation, Note, Rating, Step
from etude.records.journal import write_journal
from etude.records.ledger import Entry, Ledger
from etude.report.grades import Grade
from etude.report.history import History, figures_of, read_history
from etude.report.summary import summarize
from tests.report.runs import SCORES, attempt, evaluation, finished_run, loss_at, new_run, window


def test_windows_hold_every_step_once_also_those_without_a_log_line(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5), *window(6, 10), *window(11, 13)[:-1])
    history = read_history(writer.run)
    assert [[step.step for step in found.steps] for found in history.windows] == [
        [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13],
    ]  # fmt: skip
    assert [found.resource is None for found in history.windows] == [False, False, True]
    writer.close("stopped")


def test_the_time_between_attempts_and_before_notes_does_not_count(tmp_path: Path) -> None:
    steps = {step.step: step for step in window(1, 4) if isinstance(step, Step)}
    kept = [
        Entry(attempt(), 100.0, 1), Entry(steps[1], 101.0, 1), Entry(steps[2], 103.0, 1),
        Entry(attempt(2, 2), 1000.0, 2), Entry(steps[3], 1002.0, 2), Entry(Note("next", "x"), 9e9, 2),
    ]  # fmt: skip
    rework = [Entry(steps[3], 104.0, 1)]
    history = History(finished_run(tmp_path), Ledger(kept, rework, []))
    assert history.wall_seconds == (104 - 100) + (1002 - 1000)
    assert [history.elapsed(kept[place]) for place in (1, 2, 3, 4)] == [1, 3, 4, 6]
    assert [step.step for step in history.rework] == [3] and history.windows[0].elapsed == 6


def test_the_newest_of_scores_and_ratings_stand_and_the_first_data(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    other = replace(SCORES, split="validation")
    newer = replace(SCORES, step=9)
    mine, again, hers = (Rating(5, "p", "t", who, score) for who, score in (("a", 1), ("a", 4), ("b", 2)))
    writer.append(attempt(), DataUsed("a" * 64, {}), SCORES, other, newer, mine, hers, again)
    history = read_history(writer.run)
    assert history.scores == [newer, other]
    assert history.ratings == [again, hers]
    assert history.data is not None and history.data.fingerprint == "a" * 64
    writer.close("stopped")


def test_the_best_is_the_last_evaluation_that_was_marked_and_unknown_shares_are_no_figures(
    tmp_path: Path,
) -> None:
    writer = new_run(tmp_path)
    marked = Evaluation(6, 2.0, math.exp(2), None, 9, 1.0, True, {"bleu": 3.0, "parse_rate": math.nan})
    writer.append(attempt(), evaluation(3, 2.5), marked, evaluation(9, 2.2, best=False))
    history = read_history(writer.run)
    assert history.best is not None and history.best.step == 6 and figures_of(history.best) == {"bleu": 3.0}
    assert figures_of(None) == {}
    writer.close("stopped")


def test_a_run_killed_before_its_first_record_has_an_empty_history(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    assert [step.loss for step in read_history(run).steps] == pytest.approx(
        [loss_at(n) for n in range(1, 41)]
    )
    (run.path / "journal.jsonl").unlink()
    history = read_history(run)
    assert history.steps == [] and history.windows == [] and history.wall_seconds == 0
    assert history.base is None and history.best is None and history.data is None


def test_a_clock_that_jumps_by_years_adds_none_and_is_named(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    before = summarize(run)
    kept = run.ledger().entries
    later = [
        each._replace(time=each.time + 2e9) if place > len(kept) // 2 else each
        for place, each in enumerate(kept)
    ]
    write_journal(run.path / "journal.jsonl", later)
    after = summarize(run)
    assert after["wall_seconds"] == pytest.approx(before["wall_seconds"], abs=60.0)
    assert (before["clock_jumps"], after["clock_jumps"]) == (0, 1)
    assert any(said.startswith("The clock jumped") and "d" in said for said in after["problems"])
    assert Grade.of(run, after) is None

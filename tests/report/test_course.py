"""Phases and timeline: means over their own steps, the chosen metric, and a star at the best checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.records.store import Run
from etude.report.course import phases, timeline
from etude.report.history import read_history
from etude.report.summary import summarize_history
from tests import misleading as runs
from tests.report.runs import finished_run, loss_at, plain


def rows_of(run: Run) -> list[list[str]]:
    history = read_history(run)
    table, _ = plain(timeline(history, summarize_history(history)))
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def mean(steps: range) -> float:
    return sum(loss_at(n) * (100 + n) for n in steps) / sum(100 + n for n in steps)


def test_phase_losses_are_means_of_their_ends(tmp_path: Path) -> None:
    table, _ = plain(phases(read_history(finished_run(tmp_path))))
    row = next(line for line in table.splitlines() if line.startswith("| stable"))
    first, last = mean(range(5, 10)), mean(range(28, 33))
    assert row == f"| stable | 5 to 32 | {first:.3f} | {last:.3f} | 14.0 s |"


def test_each_row_has_the_mean_of_as_many_steps(tmp_path: Path) -> None:
    header, *_, last = rows_of(finished_run(tmp_path))
    assert header == ["step", "training loss", "validation loss", "perplexity", "learning rate", "elapsed"]
    assert last[:3] == ["40", f"{mean(range(36, 41)):.3f}", "2.600"]
    assert [row[0] for row in rows_of(finished_run(tmp_path / "again")) if "★" in row[0]] == ["20 ★"]


def test_the_metric_has_its_column_and_labels_have_no_perplexity(misleading: Callable[..., Any]) -> None:
    run = misleading(runs.worse_than_before)
    header, _, *rows = rows_of(run)
    assert header[:4] == ["step", "training loss", "validation loss", "f1"] and "perplexity" not in header
    (best,) = [row for row in rows if "★" in row[0]]
    assert best[0] == f"{run.best['step']} ★" and best[3] == f"{run.best['value']:.3f}"
    assert rows[0][:2] == ["0", "–"] and rows[0][3] == "1.00"


def test_a_bad_end_shows_where_the_best_was(misleading: Callable[..., Any]) -> None:
    rows = rows_of(misleading(runs.bad_end))[2:]
    assert [row[0] for row in rows] == ["5", "10", "15", "20 ★", "25", "30"]


def test_a_mean_without_its_broken_steps_says_so(misleading: Callable[..., Any]) -> None:
    run = misleading(runs.not_finite)
    assert rows_of(run)[-1][1].endswith("(4 of 5 steps skipped)")
    table, _ = plain(phases(read_history(run)))
    assert table.endswith(" |") and "(4 of 5 steps skipped) |" in table

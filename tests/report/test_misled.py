"""Runs made to mislead: what `show`, the report and `runs` tell of them is what happened."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.store import Run
from etude.report.summary import Summary, best_text, describe, run_table, summarize, warn_of_best
from etude.report.write import write_report
from tests import misleading as runs

Get = Callable[..., Any]
TOLD: dict[Callable[[Path], Run], list[str]] = {
    runs.constant_classifier: [
        "It may have learnt nothing: f1 rose from 0 before training to 0.667",
        "it predicts one label for all rows", "It predicts the label 1 for all 40 test rows.",
        "the same as the best baseline, always 1.",
    ],
    runs.memorised: [
        "It seems to have learnt, but ended worse", "It has memorised its training data: after 40 passes over 15 training samples",
    ],
    runs.worse_than_before: [
        "It did not get better: f1 was 1.00 before training and at best 0.", "worse than before training (1.00)",
    ],
    runs.short_last_window: ["It hardly changed: validation loss was 6.79 before training and 6.79 at best"],
    runs.endless_string: [
        "All 4 answers shown are the same text.", "None of its answers ends by itself; each was cut off",
        "Its answers repeat themselves: 9",
    ],
    runs.all_rows_cut: [
        "All 32 training rows were cut, being longer than train.seq_len.", "None of its answers ends by itself",
    ],
    runs.absent_label: ["Labels of the data: no test row has the label none;", "better than before training"],
    runs.bad_end: ["It seems to have learnt, but ended worse", "at step 20, the best step, but 12.1 at the end."],
    runs.not_finite: [
        "It diverged: the training loss is not finite from step 12 on.", "Failed at step 1",
        "of 20: the update of step 11 made some weights infinite or NaN",
    ],
    runs.killed_at_half: ["Not finished: killed at step 10 of 20; etude resume "],
}  # fmt: skip


def told(summary: Summary) -> str:
    return " ".join([summary["end"], *summary["verdict"], *summary["problems"]])


@pytest.mark.parametrize("make", TOLD, ids=lambda make: make.__name__)
def test_show_and_the_report_tell_what_happened(misleading: Get, make: Callable[[Path], Run]) -> None:
    run = misleading(make)
    shown = " ".join(text for _, text in describe(summarize(run)))
    report = re.sub(r"\\(.)", r"\1", write_report(run).read_text())  # Markdown's escapes
    for words in TOLD[make]:
        assert words in shown
        assert words in report


def test_a_best_that_is_worse_than_before_training_is_called_so_wherever_it_stands(
    misleading: Get,
) -> None:
    run = misleading(runs.worse_than_before)
    summary, value = summarize(run), run.best["value"]
    assert (
        run.best["step"]
        and summary["is_best_worse"]
        and not summarize(misleading(runs.bad_end))["is_best_worse"]
    )
    assert (
        best_text(summary) == f"{run.best['checkpoint']}, f1 {value:.4f}, worse than before training (1.0000)"
    )
    assert run_table([summary])[1][4] == f"f1 {value:.3f} (1.00 before training)"
    assert warn_of_best(run) == f"{run.name}: the best checkpoint is {best_text(summary)}"


def test_no_word_of_learning_rests_on_two_steps(misleading: Get) -> None:
    run = misleading(runs.short_last_window)
    summary = summarize(run)
    assert summary["loss_window"] == 10 and run.recipe.records.log_every_steps == 10
    assert abs(summary["last_loss"] - summary["first_loss"]) < 0.3


def test_runs_of_one_sample_say_that_their_figures_are_thin(misleading: Get) -> None:
    for run, rows in zip(misleading(runs.other_held_out_rows), (1, 2, 4)):
        assert f"Only {rows} sample" in told(summarize(run))


def test_runs_lists_the_best_by_the_metric_of_the_recipe(misleading: Get) -> None:
    header, row = run_table([summarize(misleading(runs.constant_classifier))])
    assert dict(zip(header, row))["best"] == "f1 0.667"
    header, row = run_table([summarize(misleading(runs.bad_end))])
    assert dict(zip(header, row))["best"] == "validation loss 3.69"
    assert dict(zip(header, row))["at step"] == "20"


def test_two_runs_within_noise_are_each_held_against_the_baseline(misleading: Get) -> None:
    for run in misleading(runs.equal_within_noise):
        assert "not distinguishable from the best baseline" in told(summarize(run))

"""The noise decides who is like the best: by rows that both predicted, else by the errors of each."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from etude.records.events import DataUsed
from etude.records.journal import write_journal
from etude.sweep.cells import Cell, find_runs_of, read_cells
from etude.sweep.grid import load_sweep
from etude.sweep.standing import same_rows, stand
from tests.recipes import masked, seq2seq
from tests.sweep.journals import Course, f1_of, sweep_trials, write_trial
from tests.sweeps import execute, make


def cells(runs: Path, skills: list[float], *, kept: bool = True) -> list[Cell]:
    trials = sweep_trials()[: len(skills)]
    found = {}
    for number, (trial, skill) in enumerate(zip(trials, skills)):
        run = write_trial(runs, trial, Course(60, skill=skill, seed=number))
        found[trial.name] = run
        if not kept:
            shutil.rmtree(run.path / "predictions")
    return read_cells(trials, found)


def test_a_trial_as_good_is_like_the_best_and_a_far_one_is_not(tmp_path: Path) -> None:
    first, near, far = cells(tmp_path, [0.75, 0.74, 0.4])
    standing = stand([far, near, first])
    assert standing.best in (first, near) and far not in standing.like and len(standing.like) == 1
    assert all(each.basis == "rows" for each in standing.others) and standing.is_known
    gain = next(each.gain for each in standing.others if each.cell is far)
    assert gain is not None and gain.value == pytest.approx(
        max(f1_of(Course(60, skill=0.75)), f1_of(Course(60, skill=0.74, seed=1)))
        - f1_of(Course(60, skill=0.4, seed=2))
    )


def test_without_predictions_the_errors_of_each_decide_and_are_wider(tmp_path: Path) -> None:
    paired = stand(cells(tmp_path / "a", [0.75, 0.7]))
    alone = stand(cells(tmp_path / "b", [0.75, 0.7], kept=False))
    width = [each.gain.high - each.gain.low for each in (paired.others[0], alone.others[0]) if each.gain]
    assert alone.others[0].basis == "errors" and width[0] < width[1]


def test_what_has_not_ended_stands_nowhere(tmp_path: Path) -> None:
    trials = sweep_trials()
    runs = {
        trials[0].name: write_trial(tmp_path, trials[0], Course(60, skill=0.6)),
        trials[1].name: write_trial(tmp_path, trials[1], Course(100, skill=0.9, ends=60, action="stop")),
    }
    found = read_cells(trials, runs)
    standing = stand(found)
    assert standing.best is found[0] and not standing.others and list(standing.left) == found[1:]
    assert stand(found[2:]).best is None


def test_trials_compare_on_the_same_rows_by_the_same_metric_only(tmp_path: Path) -> None:
    assert same_rows(cells(tmp_path, [0.7, 0.6])) is True


def test_of_trials_that_do_not_compare_none_is_the_best_of_their_model(tmp_path: Path) -> None:
    trials = sweep_trials()[:2]
    runs = {
        trial.name: write_trial(tmp_path, trial, Course(60, skill=skill), held_out=rows)
        for trial, skill, rows in zip(trials, (0.7, 0.6), "vw")
    }
    found = read_cells(trials, runs)
    standing = stand(found)
    assert (standing.best, standing.others, list(standing.apart)) == (None, (), found)
    assert not standing.like and stand(found[:1]).best is found[0]


def test_losses_of_tokens_compare_with_one_tokenizer_only(tmp_path: Path, corpus: Path) -> None:
    path = make(tmp_path, corpus, {"tokenizer.train_vocab_size": [280, 300]}, {"train.steps": 2})
    execute(path, place := tmp_path / "place")
    report = (place / "report" / "report.md").read_text()
    assert "no best of all is named" in report and "**" not in report.partition("### net")[2]
    trials = load_sweep(path).trials
    found = read_cells(trials, find_runs_of(trials, place / "runs"))
    assert same_rows(found) is False and same_rows(found[:1]) is True
    for cell in found:
        cell.__dict__["metric"] = ChosenMetric.parse("bits_per_byte")
    assert same_rows(found) is True


@pytest.mark.parametrize("build", [masked, seq2seq])
def test_losses_of_masked_tokens_and_pairs_compare_with_one_tokenizer_only(
    tmp_path: Path, build: Callable[..., Recipe]
) -> None:
    trials = [
        replace(each, recipe=build(Path("rows.jsonl"), None, {"name": each.name, "evaluate.metric": "loss"}))
        for each in sweep_trials()[:2]
    ]
    runs = {each.name: write_trial(tmp_path, each, Course(60)) for each in trials}
    for place, each in enumerate(trials):
        entries = [
            entry._replace(event=replace(entry.event, tokenizer=f"{place}"))
            if isinstance(entry.event, DataUsed) else entry
            for entry in runs[each.name].ledger().entries
        ]  # fmt: skip
        write_journal(runs[each.name].path / "journal.jsonl", entries)
    found = read_cells(trials, dict(runs))
    assert same_rows(found) is False and same_rows(found[:1]) is True

"""Runs made to mislead are what they are meant to be, by their journal, predictions and data alone."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import f1_score

from etude.data.prepared import prepare
from etude.records.events import Evaluation, Event, Finding, Generation, Scores, Step
from etude.records.store import Run
from etude.report.summary import summarize
from tests import misleading as runs

E = TypeVar("E", bound=Event)
Get = Callable[..., Any]


def events(run: Run, kind: type[E]) -> list[E]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def losses(run: Run) -> list[float]:
    """Validation losses; the first is that before training where a model was given."""
    return [evaluation.loss for evaluation in events(run, Evaluation)]


def mean(steps: list[Step]) -> float:
    return sum(step.loss * step.targets for step in steps) / sum(step.targets for step in steps)


def predicted(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the labels that hold for the test rows, and of those that were predicted."""
    rows = [json.loads(line) for line in (run.path / "predictions" / "test.jsonl").read_text().splitlines()]
    truth, probabilities = ([row[key] for row in rows] for key in ("labels", "probabilities"))
    return np.argmax(truth, axis=1), np.argmax(probabilities, axis=1)


def before(run: Run) -> np.ndarray:
    return np.load(run.path / "predictions" / "before-test.npy").argmax(axis=1)


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    return float(f1_score(truth, said, average="macro", labels=[0, 1, 2], zero_division=0))


def answers(run: Run) -> list[Generation]:
    return [each for each in events(run, Generation) if each.reference is not None]


def rows_of(run: Run) -> tuple[list[str], list[str]]:
    """The texts of the training and of the held-out samples."""
    corpus = prepare(run.recipe, tokenizer_folder=Path(str(run.recipe.model.from_)))
    assert corpus.validation is not None
    train, held_out = (
        [corpus.tokenizer.decode(split.sample(index).tokens.tolist()) for index in range(len(split))]
        for split in (corpus.train, corpus.validation)
    )
    return train, held_out


def test_a_constant_classifier_has_the_f1_of_the_constant(misleading: Get) -> None:
    run = misleading(runs.constant_classifier)
    truth, said = predicted(run)
    assert Counter(truth.tolist()) == {0: 20, 1: 20}
    assert set(said.tolist()) == {1} and set(before(run).tolist()) == {0}
    assert run.best["metric"] == "f1" and run.best["value"] == 2 / 3
    (scores,) = events(run, Scores)
    assert scores.distinct == 1 and scores.gains["always 1"] == [0, 0, 0] != scores.gains["majority class"]


def test_a_memorised_run_knows_its_rows_and_less_than_before_of_others(misleading: Get) -> None:
    run = misleading(runs.memorised)
    train, held_out = rows_of(run)
    assert (len(train), len(held_out)) == (15, 5)
    steps, validation = events(run, Step), losses(run)
    assert steps[-1].epoch >= 35 and mean(steps[-10:]) < 0.3 < 1.0 < mean(steps[:10])
    assert validation[-1] > validation[0] + 0.5 and validation[-1] > min(validation) + 0.5


def test_a_run_that_is_worse_than_before_was_right_before(misleading: Get) -> None:
    run = misleading(runs.worse_than_before)
    truth, said = predicted(run)
    assert f1(truth, before(run)) > 0.95 and f1(truth, said) < 0.7
    assert all(loss > 2 * losses(run)[0] for loss in losses(run)[1:])
    steps = events(run, Step)
    assert mean(steps[-10:]) < 0.9 * mean(steps[:10])  # 0.77 to 0.84, by the processor


def test_three_runs_hold_out_other_rows(misleading: Get) -> None:
    held_out = [rows_of(run)[1] for run in misleading(runs.other_held_out_rows)]
    assert [len(rows) for rows in held_out] == [1, 2, 4]
    assert not any(set(a) & set(b) for a, b in combinations(held_out, 2))


def test_the_last_log_window_has_two_steps_and_nothing_was_learnt(misleading: Get) -> None:
    run = misleading(runs.short_last_window)
    steps = events(run, Step)
    assert len(steps) == 22 and run.recipe.records.log_every_steps == 10
    assert mean(steps[20:]) > 1.05 * mean(steps[:10])
    assert abs(losses(run)[-1] - losses(run)[0]) < 0.01


def test_an_endless_string_is_one_word_that_no_answer_ends(misleading: Get) -> None:
    run = misleading(runs.endless_string)
    last = [each for each in answers(run) if each.step == 30]
    assert len(last) == 4 and all(each.stopped is False for each in last)
    assert all(set(each.text) == {"6"} and len(each.text) >= 40 for each in last)
    assert events(run, Evaluation)[-1].metrics["repetition"] > 0.9


def test_no_sample_of_cut_rows_has_its_end(misleading: Get) -> None:
    run = misleading(runs.all_rows_cut)
    for split in rows_of(run):
        assert split and not any(text.rstrip().endswith("<|im_end|>") for text in split)
    assert losses(run)[-1] < 0.5 * losses(run)[0]
    assert all(each.stopped is False for each in answers(run) if each.step)


def test_a_label_is_absent_and_every_row_is_right(misleading: Get) -> None:
    truth, said = predicted(misleading(runs.absent_label))
    assert set(truth.tolist()) == {1, 2} and (truth == said).all()
    assert math.isclose(f1(truth, said), 2 / 3)


def test_a_bad_end_follows_a_good_beginning(misleading: Get) -> None:
    run = misleading(runs.bad_end)
    validation = losses(run)
    assert min(validation) == validation[3] < 0.8 * validation[0] and validation[-1] > 2 * validation[0]
    assert run.best["step"] == 20 and run.state == "finished"


def test_the_difference_of_equal_runs_is_within_the_noise(misleading: Get) -> None:
    first, second = misleading(runs.equal_within_noise)
    (truth, a), (same, b) = predicted(first), predicted(second)
    assert (truth == same).all() and (a != b).sum() > 3
    assert f1(truth, a) != f1(truth, b)
    draw = np.random.default_rng(1)
    resamples = [draw.integers(len(truth), size=len(truth)) for _ in range(500)]
    low, high = np.quantile(
        [f1(truth[rows], a[rows]) - f1(truth[rows], b[rows]) for rows in resamples], [0.025, 0.975]
    )
    assert low < -0.01 and high > 0.01


def test_a_run_breaks_after_it_has_improved(misleading: Get) -> None:
    run = misleading(runs.not_finite)
    assert run.state == "failed" and losses(run)[-1] < 0.95 * losses(run)[0]
    reason = f"the update of step {runs.HALF + 1} made some weights infinite or NaN"
    assert str(summarize(run)["reason"]).startswith(reason)
    broken = [each.step for each in events(run, Finding) if each.what == "non-finite weights"]
    assert broken == [runs.HALF + 1] and run.best["step"] == runs.HALF
    assert [step.step for step in events(run, Step) if math.isnan(step.loss)]


def test_a_killed_run_ends_without_a_word_at_half(misleading: Get) -> None:
    run = misleading(runs.killed_at_half)
    assert run.state == "killed" and run.best["step"] == 8
    assert [step.step for step in events(run, Step)] == list(range(1, runs.HALF + 1))
    assert json.loads((run.path / "lease.json").read_text())["state"] == "running"

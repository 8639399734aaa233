"""A run that is asked to end leaves what takes long, and makes it up when it is resumed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from etude.control.mailbox import post
from etude.engine.batch import DeviceBatch
from etude.interruption import Abandoned, abandonable, interruptible, interruption_point, with_points
from etude.objectives.classification import Classification
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.events import Control, Evaluation, Finding, Scores, Step
from etude.records.store import Run, list_runs
from etude.run import Training, run_recipe
from etude.scores.baselines import nearest_neighbour, tfidf_logistic
from etude.start import Options
from tests import recipes
from tests.bases import write_labelled

Metric = Callable[[nn.Module, Iterable[DeviceBatch]], float]


def test_a_point_leaves_the_work_inside_only() -> None:
    def leave() -> None:
        raise Abandoned

    interruption_point()
    with pytest.raises(Abandoned), interruptible(lambda: None):
        interruption_point()
        with interruptible(leave):
            interruption_point()
    interruption_point()


def labels(folder: Path) -> Recipe:
    changes = {"train.steps": 8, "evaluate.every_steps": 4, "checkpoint.every_steps": 4, "model.dropout": 0.1}
    return recipes.classification(write_labelled(folder / "rows.jsonl", 60), changes=changes)


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def outcome(run: Run) -> tuple[Any, ...]:
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    bits = [(last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]
    measured = {each.step: (each.loss, each.best) for each in events(run, Evaluation)}
    (scores,) = events(run, Scores)
    return bits, run.best, measured, scores.systems, [each.loss for each in events(run, Step)]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("at", "how"), [(4, "request"), (8, "signal")])
def test_an_evaluation_is_left_and_made_up(tmp_path: Path, at: int, how: str) -> None:
    def metric(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
        runs, seen = list_runs(tmp_path / "runs"), 0
        is_now = is_to_ask and bool(runs) and len(events(runs[0], Step)) == at
        for batch in batches:
            if is_now and not seen:
                terminate() if how == "signal" else post(list_runs(tmp_path / "runs")[0], "stop")
                # A thread takes requests; the next batch may come before it.
                while how == "request" and not events(list_runs(tmp_path / "runs")[0], Control):
                    time.sleep(0.05)
            seen += batch.tokens.numel()
        return float(seen)

    recipe, is_to_ask = labels(tmp_path), False
    given = {"metrics": {"tokens": metric}}
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole", **given)).run
    is_to_ask = True
    training = run_recipe(recipe, Options(runs=tmp_path / "runs", **given))
    assert training.ending.state == "stopped"
    assert [each.step for each in events(training.run, Evaluation)] == [step for step in (0, 4) if step < at]
    promised = [each.reason for each in events(training.run, Control) if each.action == "accept"]
    assert promised == (["stop: acts after the evaluation"] if how == "request" else [])
    is_to_ask = False
    run = run_recipe(recipe, Options(runs=tmp_path / "runs", **given)).run
    assert run.state == "finished" and outcome(run) == outcome(whole)


@pytest.mark.parametrize("what", ["keep_before", "compare"])
def test_predictions_and_scores_are_left_and_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    recipe = labels(tmp_path)
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    do = getattr(Classification, what)
    with monkeypatch.context() as patch:
        patch.setattr(Classification, what, lambda *given: (terminate(), do(*given))[1])
        training = run_recipe(recipe, Options(runs=tmp_path / "runs"))
    assert training.ending == Ending("stopped", "SIGTERM was received", was_asked=True)
    assert len(events(training.run, Step)) == (0 if what == "keep_before" else 8)
    assert events(training.run, Scores) == []
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert run.state == "finished" and outcome(run) == outcome(whole)


@pytest.mark.parametrize(("grace", "is_written"), [("1h", True), ("1s", False)])
def test_the_report_is_left_where_the_grace_is_nearly_over(
    tmp_path: Path, grace: str, is_written: bool
) -> None:
    recipe = recipes.recipe_from(recipes.change(labels(tmp_path).to_dict(), {"run.grace": grace}))
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.6)
    assert (training.ending.state, training.ending.reason) == ("paused", "SIGUSR1 was received")
    assert training.run.state == "paused"
    assert (training.run.path / "report" / "report.md").exists() is is_written
    said = {each.what: each.evidence for each in events(training.run, Finding)}
    assert ("no report" in said) is not is_written


def test_work_of_a_library_is_left_before_its_end_and_else_gives_what_it_gives() -> None:
    end, left = threading.Event(), list[str]()

    def leave() -> None:
        left.append("looked")
        raise Abandoned

    assert abandonable(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        abandonable(lambda: 1 // 0)
    with pytest.raises(Abandoned), interruptible(leave):
        abandonable(end.wait)
    assert left == ["looked"]
    end.set()
    with pytest.raises(Abandoned), interruptible(leave):
        list(with_points([1, 2]))
    assert list(with_points([1, 2])) == [1, 2]


def test_a_baseline_is_left_before_its_end() -> None:
    def leave() -> None:
        raise Abandoned

    texts, truth = [f"word{number} {number % 2}" for number in range(40)], np.arange(40) % 2
    with pytest.raises(Abandoned), interruptible(leave):
        tfidf_logistic(texts, truth, texts, multi=False)
    with pytest.raises(Abandoned), interruptible(leave):
        nearest_neighbour(texts, texts, texts)

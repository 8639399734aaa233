import json
import math
import statistics
from pathlib import Path

import pytest

from etude.records.events import DataUsed, Evaluation, Event, Step
from etude.records.store import Run
from etude.report.compare import compare_runs
from etude.report.progression import Progression
from tests.report.runs import attempt, loss_at, new_run, window


def run_of(runs: Path, samples: int, events: list[Event], status: str = "finished") -> Run:
    writer = new_run(runs, {"data.validation_ratio": 0.05})
    data = DataUsed(f"{samples:064}", {"train": {"samples": samples}})
    writer.append(attempt(steps=10, steps_per_epoch=5), data, *events)
    writer.close(status)
    return writer.run


def score(step: int, loss: float, best: bool = False, **figures: float) -> Evaluation:
    return Evaluation(step, loss, math.exp(loss), None, 500, 1.0, best, figures)


def progression(*runs: Run) -> Progression:
    return compare_runs(runs).progression


def test_three_runs_are_held_each_against_the_one_before(tmp_path: Path) -> None:
    a = run_of(
        tmp_path, 5, [score(0, 3.0), *window(1, 5), score(5, 2.0, True), *window(6, 10), score(10, 2.5)]
    )
    b = run_of(tmp_path, 8, [score(0, 3.0), *window(1, 10, seconds=0.6), score(10, 1.0, True, stop_rate=0.5)])
    c = run_of(
        tmp_path, 100, [score(0, 3.0), *window(1, 10, seconds=1.2), score(10, 1.5, True, stop_rate=0.75)]
    )
    found = progression(a, b, c)
    rows = {row[0]: row[1:] for row in found.rows()}
    assert rows["training samples"] == ["5", "8 (+60.0 %)", "100 (+1150.0 %)"]
    assert rows["validation loss, best"] == ["2.0000", "1.0000 (-50.0 %)", "1.5000 (+50.0 %)"]
    assert rows["validation loss, last"] == ["2.5000", "1.0000 (-60.0 %)", "1.5000 (+50.0 %)"]
    assert rows["  at step"] == ["5", "10", "10"]
    assert rows["stop rate"] == ["–", "0.5000", "0.7500 (+0.2500)"]
    assert rows["samples/s"] == ["16.000", "13.333 (-16.7 %)", "6.667 (-50.0 %)"]
    assert rows["time per epoch"] == ["2.500 s", "3.000 s (+20.0 %)", "6.000 s (+100.0 %)"]
    assert rows["status"] == ["best before the end", "improved to the end", "improved to the end"]
    assert found.scaling()[1].endswith(
        "12.50 times the training samples took 2.00 times the time in steps, for 1.00 times the samples "
        "seen; a sample seen cost 2.00 times as much"
    )
    text = "\n".join(found.lines())
    assert "the losses may be of different samples" in text
    assert "rose to 2.5000 after 2.0000 at step 5, over 500 targets; no answer was judged" in text
    assert "50.0 % of its answers end by themselves" in text
    assert text.count("◆ best, step") == 3 and sum(line.count("◆") for line in found.lines()) == 6
    json.dumps(compare_runs([a, b, c]).to_dict(), allow_nan=False)


def test_without_validation_all_are_held_by_the_training_loss_of_an_epoch(tmp_path: Path) -> None:
    a = run_of(tmp_path, 5, window(1, 10))
    b = run_of(tmp_path, 5, [*window(1, 10), score(10, 1.0, True)])
    found = progression(a, b)

    def mean(steps: range) -> float:
        return sum(loss_at(n) * (100 + n) for n in steps) / sum(100 + n for n in steps)

    assert found.statistic == "training loss (mean over an epoch)"
    for stage in found.stages:
        assert stage.best_loss == stage.last_loss == pytest.approx(mean(range(6, 11)))
        assert stage.best_step == 10
    assert [stage.status for stage in found.stages] == ["not evaluated", "evaluated once"]
    assert "not every run has a validation loss, so training losses are compared" in found.lines()


def test_the_best_epoch_of_a_loss_that_rises_again_is_found(tmp_path: Path) -> None:
    losses = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    steps = [Step(n, 0, loss, n / 10, 1e-3, 10, 8, 0.5, 0.0) for n, loss in enumerate(losses, 1)]
    stage = progression(run_of(tmp_path, 5, [*steps]), run_of(tmp_path, 5, [])).stages[0]
    assert (stage.best_loss, stage.best_step, stage.last_loss) == (pytest.approx(1.8), 7, pytest.approx(3.0))
    norms = [n / 10 for n in range(1, 11)]
    low, middle, high = statistics.quantiles(norms, n=4)
    assert (stage.grad_norm, stage.grad_max) == (pytest.approx(middle), 1.0)
    assert stage.grad_spread == pytest.approx((high - low) / middle)


@pytest.mark.parametrize(
    ("events", "status", "expected"),
    [
        ([score(0, 1.0), *window(1, 10), score(10, 1.5, True)], "finished", "no gain"),
        (
            [*window(1, 5), score(5, 1.0, True), *window(6, 10), score(10, 1.5)],
            "finished",
            "best before the end",
        ),
        ([*window(1, 10, bad=tuple(range(1, 11)))], "finished", "diverged"),
        ([score(0, 3.0), *window(1, 10), score(10, math.nan)], "finished", "diverged"),
        ([*window(1, 4)], "failed", "failed"),
        ([], "stopped", "not evaluated"),
    ],
)
def test_a_status_is_what_was_measured(
    tmp_path: Path, events: list[Event], status: str, expected: str
) -> None:
    stage = progression(*[run_of(tmp_path, 5, events, status)] * 2).stages[0]
    assert stage.status == expected and stage.reason
    assert "production" not in stage.status + stage.reason


def test_a_run_that_ended_early_says_so(tmp_path: Path) -> None:
    run = run_of(tmp_path, 5, [score(0, 3.0), *window(1, 4), score(4, 2.0, True)], "stopped")
    assert "at step 4 of 10" in progression(run, run).stages[0].reason

"""Figures of runs side by side are those of hand arithmetic over the journal."""

import statistics
from pathlib import Path

import pytest

from etude.records.events import DataUsed, Step
from etude.report.compare import compare_runs
from tests.report.runs import attempt, evaluation, new_run, window


def test_time_speed_and_gradient_norms_are_those_of_the_steps(tmp_path: Path) -> None:
    steps = [Step(n, 0, 2.0, n / 10, 1e-3, 10, 8, 0.5 if n < 10 else 1.5, 0.0) for n in range(1, 11)]
    writer = new_run(tmp_path)
    writer.append(attempt(steps=10, steps_per_epoch=5), DataUsed("f", {"train": {"samples": 40}}), *steps)
    writer.close("finished")
    found = {each.name: each for each in compare_runs([writer.run, writer.run]).results}
    assert found["training_seconds"].values[0] == pytest.approx(6.0)
    assert found["samples_per_second"].values[0] == pytest.approx(80 / 6.0)
    assert found["epoch_seconds"].values[0] == pytest.approx(3.0)
    assert found["step_seconds"].values[0] == 0.5
    assert found["grad_norm_median"].values[0] == statistics.median(n / 10 for n in range(1, 11))
    assert found["grad_norm_max"].values[0] == 1.0 and found["train_samples"].values[0] == 40
    assert "skipped_steps" not in found, "nothing to say where none was skipped"


def test_only_what_compares_has_a_change(tmp_path: Path) -> None:
    runs = []
    for rate in (1e-3, 2e-3):
        writer = new_run(tmp_path, {"optim.learning_rate": rate})
        writer.append(attempt(), DataUsed("f", {}), *window(1, 40), evaluation(40, 1000 * rate))
        writer.close("finished")
        runs.append(writer.run)
    compared = {each.name for each in compare_runs(runs).results if each.compares}
    assert compared == {"metric_best", "training_loss_last", "training_seconds"}

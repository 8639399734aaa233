"""Evaluations that mislead."""

from random import Random

import pytest

from etude.records.events import Finding
from etude.watch.detectors.evaluations import (
    Contamination,
    EndOnNoise,
    EvaluationSpike,
    MetricSplit,
    NoisyEvaluation,
)
from etude.watch.point import Facts, Point

Detector = Contamination | EndOnNoise | EvaluationSpike | MetricSplit | NoisyEvaluation


def run(detector: Detector, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


LOSSES = [1.0, 0.9, 0.8, 0.9, 1.0, 1.1, 1.2]


def measured(metrics: list[dict[str, float]]) -> list[Point]:
    return [
        Point(step=100 * at, eval_loss=loss, eval_error=0.02, metrics=values)
        for at, (loss, values) in enumerate(zip(LOSSES, metrics), 1)
    ]


@pytest.mark.parametrize(
    ("name", "values"),
    [("f1", [0.5, 0.6, 0.7, 0.75, 0.8, 0.82, 0.83]), ("eval_wer", [0.5, 0.4, 0.3, 0.28, 0.26, 0.25, 0.24])],
)
def test_a_metric_that_gets_better_while_the_loss_gets_worse_is_a_remark(
    name: str, values: list[float]
) -> None:
    (finding,) = run(MetricSplit(Facts()), measured([{"rows": 7.0, name: value} for value in values]))
    assert finding.step == 500 and finding.severity == "info" and finding.window == [300, 500]
    assert f"{name} {values[2]} at step 300" in finding.evidence
    assert not run(MetricSplit(Facts()), measured([{name: values[2]}] * 7))


def test_the_recipes_metric_and_its_direction_come_first() -> None:
    metrics = [{"f1": 0.5, "mine": 1.0 - at / 10} for at in range(7)]
    assert run(MetricSplit(Facts(metric="mine", lower_is_better=True)), measured(metrics))
    assert not run(MetricSplit(Facts(metric="mine", lower_is_better=False)), measured(metrics))
    assert not run(MetricSplit(Facts()), measured([{"mine": 1.0 - at / 10} for at in range(7)]))


def test_noise_above_the_gains_is_a_remark() -> None:
    random = Random(1)
    losses = [1.0 + (0.2 if at % 2 else 0) + random.gauss(0, 0.02) for at in range(10)]
    points = [Point(step=at, eval_loss=loss) for at, loss in enumerate(losses)]
    (finding,) = run(NoisyEvaluation(Facts(eval_rows=20)), points)
    assert finding.severity == "info" and finding.step == 7 and "now 20" in finding.advice
    assert 0.1 < finding.changes["evaluate.min_improvement"] < 0.6
    steady = [Point(step=at, eval_loss=1 / at) for at in range(1, 20)]
    assert not run(NoisyEvaluation(Facts()), steady)


def test_an_evaluation_far_above_both_neighbours_is_found_after_the_next() -> None:
    def points(losses: list[float], error: float | None = None) -> list[Point]:
        return [Point(step=100 * at, eval_loss=loss, eval_error=error) for at, loss in enumerate(losses, 1)]

    (finding,) = run(EvaluationSpike(Facts()), points([1.0, 0.9, 1.2, 0.85, 0.8]))
    assert finding.step == 400 and finding.window == [300, 400] and "1.2 at step 300" in finding.evidence
    assert not run(EvaluationSpike(Facts()), points([1.0, 0.9, 1.2, 0.85, 0.8], error=0.2))
    assert not run(EvaluationSpike(Facts()), points([1.0, 0.9, 1.2, 1.3, 1.2]))  # a rise
    assert not run(EvaluationSpike(Facts()), points([0.01, 0.01, 0.02, 0.01]))


def test_a_validation_loss_far_below_training_asks_for_the_overlap() -> None:
    points = [Point(step=at, loss=2.0) for at in range(1, 11)]
    known, unknown = Point(step=10, eval_loss=0.5, eval_error=0.1), Point(step=10, eval_loss=0.5)
    (warning,) = run(Contamination(Facts()), [*points, known])
    (remark,) = run(Contamination(Facts()), [*points, unknown])
    assert (warning.severity, remark.severity) == ("warning", "info")
    assert warning.changes == {"data.leakage.action": "drop"}
    assert not run(Contamination(Facts()), [*points, Point(step=10, eval_loss=1.2)])
    assert not run(Contamination(Facts()), [*points, Point(step=10, eval_loss=0.5, eval_error=0.6)])


def test_a_training_loss_that_falls_fast_is_not_taken_by_its_past() -> None:
    points = [Point(step=at, loss=3.0 * 0.6**at) for at in range(1, 7)]
    assert not run(Contamination(Facts()), [*points, Point(step=6, eval_loss=0.13, eval_error=0.001)])


def waiting(patience: int, losses: list[float], error: float | None, every: int = 10) -> list[Finding]:
    facts = Facts(patience=patience, steps=1000, steps_per_epoch=800, metric="loss", eval_rows=8)
    points = [Point(step=every * at, eval_loss=loss, eval_error=error) for at, loss in enumerate(losses, 1)]
    return run(EndOnNoise(facts), points)


def test_patience_that_ends_a_run_on_noise_is_told_where_it_ends() -> None:
    (finding,) = waiting(2, [3.0, 2.5, 2.52, 2.51], error=0.1)
    assert finding.step == 40 and finding.window == [20, 40]
    assert finding.changes == {"evaluate.patience": 20}  # a fifth of 1,000 steps, of 10 each
    assert "2.5 at step 20 and 2.51 at step 40 of 1,000 of 8 rows" in finding.evidence
    assert waiting(2, [3.0, 2.5, 2.52, 2.51], error=None)


def test_patience_that_ends_a_run_for_a_reason_is_left_alone() -> None:
    assert not waiting(2, [3.0, 2.5, 2.8, 2.9], error=0.1)  # worse beyond doubt
    assert not waiting(3, [3.0, 2.5, 2.52, 2.51], error=0.1)  # it goes on
    assert not waiting(2, [3.0, 2.5, 2.52, 2.51], error=0.1, every=200)  # in the second half
    assert not run(EndOnNoise(Facts(steps=1000, steps_per_epoch=800, metric="loss")), [])


@pytest.mark.parametrize(("times", "first"), [(8, "summed"), (1, "trained on")])
def test_a_loss_that_is_summed_over_micro_batches_begins_above_any_guess(times: int, first: str) -> None:
    detector = Contamination(Facts())
    for step in range(1, 50):
        assert detector.observe(Point(step=step, loss=(2 + 2 * 0.9**step) * times)) is None
    found = detector.observe(Point(step=50, eval_loss=2.0 if times > 1 else 0.5))
    assert found is not None and first in found.causes[0]

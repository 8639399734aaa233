"""Rows that are known by heart."""

from random import Random

from etude.records.events import Finding
from etude.watch.detectors.passes import Duplicates, EpochStep
from etude.watch.point import Facts, Point
from tests.watch.curves import Shape, healthy


def run(detector: EpochStep | Duplicates, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


def test_a_step_down_at_the_edge_of_an_epoch_is_a_remark_within_25_points() -> None:
    for seed in range(20):
        shape = Shape(points=400, epochs=2, step=0.2, evaluations=0, stride=10)
        (finding,) = run(EpochStep(Facts()), healthy(shape, Random(seed)))
        assert finding.severity == "info" and 2000 < finding.step <= 2260
        assert "where epoch 2 begins" in finding.evidence


def test_epochs_without_a_step_are_left_alone() -> None:
    for seed in range(100):
        shape = Shape(points=400, epochs=2, evaluations=0, noise=0.05)
        assert not run(EpochStep(shape.facts), healthy(shape, Random(seed)))


def test_the_edge_comes_from_the_facts_where_the_log_has_no_epochs() -> None:
    points = [Point(step=at, loss=2.0 if at <= 100 else 1.0) for at in range(1, 201)]
    assert not run(EpochStep(Facts()), points)
    (finding,) = run(EpochStep(Facts(steps_per_epoch=100)), points)
    assert finding.step == 125 and finding.window == [76, 125]
    assert not run(EpochStep(Facts(steps_per_epoch=150)), points)


def test_repeated_rows_with_half_the_loss_are_duplicates() -> None:
    points = [
        Point(step=at, epoch=at / 100, loss=1.9, repeated_loss=0.4, new_loss=2.0, repeated_rows=4)
        for at in range(1, 20)
    ]
    (finding,) = run(Duplicates(Facts()), points)
    assert finding.step == 8 and "over 32 rows" in finding.evidence
    assert finding.changes == {"data.deduplicate": "near"}


def test_rows_of_later_epochs_and_repeated_rows_as_hard_as_new_ones_are_no_duplicates() -> None:
    late = [
        Point(step=at, epoch=1.5, repeated_loss=0.4, new_loss=2.0, repeated_rows=4) for at in range(1, 40)
    ]
    hard = [
        Point(step=at, epoch=0.5, repeated_loss=1.8, new_loss=2.0, repeated_rows=4) for at in range(1, 40)
    ]
    assert not run(Duplicates(Facts()), late) and not run(Duplicates(Facts()), hard)

"""Learning rates, gradients and scales that keep a model from learning."""

import math
from random import Random

import pytest

from etude.records.events import Finding
from etude.watch.detectors.rate import ClipSaturation, DeadRate, ScaleCollapse
from etude.watch.point import Facts, Point

Detector = ClipSaturation | DeadRate | ScaleCollapse


def run(detector: Detector, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


@pytest.mark.parametrize("stride", [1, 10])
def test_a_rate_that_ends_before_the_steps_is_found(stride: int) -> None:
    points = [
        Point(step=at, loss=2.0, learning_rate=max(1e-3 * (1 - at / 300), 0.0))
        for at in range(stride, 1001, stride)
    ]
    (finding,) = run(DeadRate(Facts(steps=1000)), points)
    assert 300 <= finding.step <= 330 and "after a peak of 0.0009" in finding.evidence
    assert finding.changes == {"schedule.min_lr_ratio": 0.1}
    assert not run(DeadRate(Facts(steps=310)), points[: 310 // stride])
    assert not run(DeadRate(Facts()), points)  # perhaps these are its last steps


def test_a_rate_of_zero_from_the_start_is_found_and_a_warm_up_is_not() -> None:
    zeros = [Point(step=at, learning_rate=0.0) for at in range(1, 100)]
    (finding,) = run(DeadRate(Facts()), zeros)
    assert finding.step == 21 and "from the start on" in finding.evidence
    warm_up = [Point(step=at, learning_rate=1e-3 * min((at - 1) / 1000, 1)) for at in range(1, 1001)]
    assert not run(DeadRate(Facts(steps=2000)), warm_up)


def test_updates_that_change_nothing_are_found_after_fifty_points() -> None:
    small = [Point(step=at, learning_rate=1e-9, update_ratio=1e-8) for at in range(1, 200)]
    (finding,) = run(DeadRate(Facts()), small)
    assert (
        finding.step == 50
        and "1e-08" in finding.evidence
        and finding.changes == {"optim.learning_rate": 1e-8}
    )
    usual = [Point(step=at, learning_rate=1e-3, update_ratio=1e-4) for at in range(1, 200)]
    assert not run(DeadRate(Facts()), usual)


@pytest.mark.parametrize(("norm", "severity"), [(60.0, "warning"), (5.0, "info")])
def test_norms_that_are_always_clipped_are_found_after_200_steps(norm: float, severity: str) -> None:
    random = Random(1)
    for stride in (1, 10):
        points = [
            Point(step=at, grad_norm=norm * math.exp(random.gauss(0, 0.1)))
            for at in range(stride, 1001, stride)
        ]
        (finding,) = run(ClipSaturation(Facts(max_grad_norm=1.0)), points)
        assert finding.severity == severity and 200 <= finding.step <= 220 and "100%" in finding.evidence
        assert not run(ClipSaturation(Facts()), points) and not run(
            ClipSaturation(Facts(max_grad_norm=100)), points
        )


def test_norms_little_above_the_limit_are_left_alone() -> None:
    points = [Point(step=at, grad_norm=1.3) for at in range(1, 1000)]
    assert not run(ClipSaturation(Facts(max_grad_norm=1.0)), points)


def test_norms_that_are_clipped_now_and_then_are_left_alone() -> None:
    points = [Point(step=at, grad_norm=50.0 if at % 3 else 0.5) for at in range(1, 1000)]
    assert not run(ClipSaturation(Facts(max_grad_norm=1.0)), points)


def test_a_scale_that_is_halved_again_and_again_is_found_and_the_search_for_it_is_not() -> None:
    search = [Point(step=at, loss_scale=65536.0 * 2.0 ** -min(at, 6)) for at in range(1, 300)]
    assert not run(ScaleCollapse(Facts()), search)
    halved = [Point(step=at, loss_scale=65536.0 / 2 ** max((at - 100) // 10, 0)) for at in range(1, 300)]
    (finding,) = run(ScaleCollapse(Facts()), halved)
    assert finding.step == 130 and "halved 3 times" in finding.evidence
    assert finding.changes == {"train.precision": "bf16"}
    low = [Point(step=at, loss_scale=65536.0 / 2 ** min(at // 2, 10)) for at in range(1, 300)]
    (finding,) = run(ScaleCollapse(Facts()), low)
    assert finding.step == 52 and "loss scale 64" in finding.evidence

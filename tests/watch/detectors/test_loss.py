"""Losses that rise for good, and losses that stand still."""

import math
from random import Random

import pytest

from etude.records.events import Finding
from etude.watch.detectors.loss import Divergence, Plateau
from etude.watch.point import Facts, Point
from tests.watch.curves import Shape, change, healthy


def run(detector: Divergence | Plateau, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


@pytest.mark.parametrize("stride", [1, 10, 500])
def test_a_loss_that_jumps_and_stays_is_found_within_the_stated_delay(stride: int) -> None:
    for seed in range(10):
        points = healthy(Shape(stride=stride, evaluations=0), Random(seed))
        broken = change(points, 200, loss=lambda at, each: each.loss + 5.0)
        (finding,) = run(Divergence(Facts()), broken)
        assert finding.kind == "divergence" and 200 < finding.step / stride <= 200 + 26
        assert finding.changes["optim.learning_rate"] == pytest.approx(3e-4)
        assert finding.window is not None and 150 <= finding.window[0] / stride <= 200  # before the jump
        assert finding.severity == "error" and "of the fall is lost" in finding.evidence


def test_a_first_step_that_ruins_the_model_is_found_after_five_points() -> None:
    losses = [1.64, 11.8, 11.6, 10.4, 10.4, 10.4, 10.4]
    (finding,) = run(Divergence(Facts()), [Point(step=at, loss=loss) for at, loss in enumerate(losses, 1)])
    assert finding.step == 5 and "where the first was 1.64" in finding.evidence


@pytest.mark.parametrize("seed", range(20))
def test_rare_errors_of_small_batches_are_no_divergence_and_a_collapse_is(seed: int) -> None:
    """A classifier that is right of all but 5 % of its 8 rows, and one that answers by chance from step 50."""
    draw = Random(seed)

    def loss(step: int, collapse: int) -> float:
        if step < 20 or step >= collapse:
            return sum(draw.uniform(0.4, 1.0) for _ in range(8)) / 8
        return sum(draw.expovariate(0.4) if draw.random() < 0.05 else 0.005 for _ in range(8)) / 8

    for collapse in (1000, 50):
        points = [Point(step=at, loss=loss(at, collapse), targets=8) for at in range(1, 201)]
        found = run(Divergence(Facts(steps=200)), points)
        assert len(found) == (collapse == 50) and all(50 < each.step <= 135 for each in found)


def test_the_onset_of_a_jump_at_the_start_is_the_start_however_late_it_is_found() -> None:
    random = Random(7)
    losses = [4.93, 8.8, 12.2, 7.4, 7.6] + [6.0 + 2 * 0.8**at + random.gauss(0, 0.12) for at in range(90)]
    points = [Point(step=at, loss=loss) for at, loss in enumerate(losses, 1)]
    (finding,) = run(Divergence(Facts()), points)
    assert finding.window == [1, finding.step] and finding.step > 15
    assert finding.advice.startswith("start again with a third")


def test_a_slow_rise_is_found() -> None:
    points = healthy(Shape(points=1000, evaluations=0), Random(2))
    broken = change(points, 500, loss=lambda at, each: each.loss * (1 + at / 500))
    (finding,) = run(Divergence(Facts()), broken)
    assert 600 < finding.step < 800


def test_a_level_above_that_of_a_model_that_knows_nothing_is_found() -> None:
    points = [Point(step=step, loss=11.3 + 0.01 * (step % 3)) for step in range(1, 200)]
    assert not run(Divergence(Facts()), points)
    (finding,) = run(Divergence(Facts(classes=50_000)), points)
    assert finding.step == 60 and f"{math.log(50_000):.4g}" in finding.evidence


@pytest.mark.parametrize("shape", [Shape(bump=0.15), Shape(restart=0.3, points=1000), Shape(noise=0.1)])
def test_bumps_and_restarts_are_no_divergence(shape: Shape) -> None:
    for seed in range(20):
        assert not run(Divergence(shape.facts), healthy(shape, Random(seed)))


def test_a_spike_that_comes_back_is_no_divergence() -> None:
    points = healthy(Shape(evaluations=0), Random(3))
    assert not run(Divergence(Facts()), change(points, 200, loss=lambda at, each: each.loss + 4.0 * 0.7**at))


def test_losses_below_zero_are_not_judged() -> None:
    detector = Divergence(Facts())
    random = Random(4)
    assert not run(detector, [Point(step=at, loss=0.1 + random.gauss(0, 1)) for at in range(1, 300)])
    assert "no likelihood" in str(detector.untold())


def test_a_flat_loss_is_a_remark_unless_nothing_was_learnt() -> None:
    random = Random(5)
    points = [
        Point(step=at, loss=math.log(1000) + random.gauss(0, 0.02), learning_rate=1e-3)
        for at in range(1, 401)
    ]
    (remark,) = run(Plateau(Facts(steps=400)), points)
    (warning,) = run(Plateau(Facts(steps=400, classes=1000)), points)
    assert (
        remark.severity == "info"
        and warning.severity == "warning"
        and "a guess among 1,000 has 6.908" in warning.evidence
    )
    assert warning.step == remark.step == 121  # 24 blocks of 5 points after the first


def test_a_loss_at_that_of_chance_which_falls_slowly_is_learning() -> None:
    points = [Point(step=at, loss=math.log(1000) - at * 3e-4, learning_rate=1e-3) for at in range(1, 401)]
    assert [each.severity for each in run(Plateau(Facts(steps=400, classes=1000)), points)] == ["info"]


def test_a_loss_that_falls_and_one_whose_rate_has_decayed_are_no_plateau() -> None:
    falling = [Point(step=at, loss=3 - at / 1000, learning_rate=1e-3) for at in range(1, 1001)]
    decayed = [Point(step=at, loss=3.0, learning_rate=1e-3 if at < 30 else 5e-5) for at in range(1, 1001)]
    assert not run(Plateau(Facts(steps=1000)), falling) and not run(Plateau(Facts(steps=1000)), decayed)


def test_a_small_fall_is_left_to_the_task() -> None:
    detector = Plateau(Facts())
    run(detector, [Point(step=at, loss=3 - at / 1000) for at in range(1, 101)])
    assert detector.untold() == "the loss fell by 3% so far; the task says whether more was to be expected"


@pytest.mark.parametrize("length", [5, 10, 15])
def test_a_jump_after_a_resume_that_comes_back_is_no_divergence(length: float) -> None:
    """A loss scale or an optimizer state that was not restored: the loss is lost at once, and found again."""
    for seed in range(5):
        points = healthy(Shape(points=600, evaluations=0), Random(seed))
        broken = change(points, 300, loss=lambda at, each: each.loss + 20 * math.exp(-at / length))
        assert not run(Divergence(Facts()), broken)


def test_a_jump_that_comes_back_halfway_is_a_divergence() -> None:
    points = healthy(Shape(points=600, evaluations=0), Random(1))
    broken = change(points, 300, loss=lambda at, each: each.loss + 10 * (1 + math.exp(-at / 15)))
    (finding,) = run(Divergence(Facts()), broken)
    assert finding.step <= 300 + 60


def test_a_loss_that_rises_within_an_epoch_after_its_step_down_is_no_divergence() -> None:
    """Stairs: rows that are known score best where an epoch begins, and the loss stays below the epoch before."""
    draw = Random(5)
    for has_epoch in (True, False):
        points = [
            Point(
                step=at + 1,
                epoch=(at + 1) / 300 if has_epoch else None,
                loss=(1.2, 0.8, 0.45)[at // 300] * (1 + (at >= 300) * 0.3 * (at % 300) / 300)
                + (2.0 * math.exp(-at / 20) if at < 300 else 0)
                + draw.gauss(0, 0.02),
            )
            for at in range(900)
        ]
        facts = Facts(steps_per_epoch=None if has_epoch else 300)
        assert not run(Divergence(facts), points)
    first = [
        Point(step=at + 1, epoch=(at + 1) / 900, loss=1.0 + 2.0 * math.exp(-at / 20)) for at in range(300)
    ]
    worse = [Point(step=301 + at, epoch=(301 + at) / 900, loss=1.0 + at / 300) for at in range(300)]
    assert run(Divergence(Facts()), first + worse)

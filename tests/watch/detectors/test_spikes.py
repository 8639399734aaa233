"""Jumps of the loss, one with its gradient or many."""

import math
from random import Random

from etude.records.events import Finding
from etude.watch.detectors.spikes import Spike, Spikes
from etude.watch.point import Facts, Point
from tests.watch.curves import Shape, change, healthy


def run(detector: Spike | Spikes, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


def test_a_jump_of_loss_and_norm_is_found_within_five_points() -> None:
    for seed in range(20):
        points = healthy(Shape(evaluations=0), Random(seed))
        spiked = change(
            points,
            300,
            loss=lambda at, each: each.loss * (1.4 if 2 <= at < 6 else 1),
            grad_norm=lambda at, each: each.grad_norm * (15 if at < 2 else 1),
        )
        (finding,) = run(Spike(Facts()), spiked)
        assert finding.kind == "spike" and 301 <= finding.step <= 306
        assert finding.window == [finding.window[0], finding.step] and "usual" in finding.evidence  # type: ignore[index]
        assert finding.changes == {"train.max_grad_norm": 1.0}
        assert not run(Spike(Facts()), points)


def test_a_norm_that_jumps_alone_or_a_loss_alone_is_no_spike() -> None:
    points = healthy(Shape(evaluations=0), Random(1))
    norms = change(points, 300, grad_norm=lambda at, each: each.grad_norm * (30 if at == 0 else 1))
    losses = change(points, 300, loss=lambda at, each: each.loss * (1.4 if at == 0 else 1))
    assert not run(Spike(Facts()), norms) and not run(Spike(Facts()), losses)


def test_spike_says_that_it_needs_norms() -> None:
    detector = Spike(Facts())
    detector.observe(Point(step=1, loss=2.0))
    assert detector.untold() == "no gradient norms, which tell spikes from hard batches"
    detector.observe(Point(step=2, loss=2.0, grad_norm=1.0))
    assert detector.untold() is None


def test_jumps_again_and_again_are_reported_once() -> None:
    points = [Point(step=step, loss=2.0 if step % 40 else 4.0) for step in range(1, 401)]
    (finding,) = run(Spikes(Facts()), points)
    assert (
        finding.step == 120 and "3 of 120 points" in finding.evidence and "4 at step 120" in finding.evidence
    )


def test_two_jumps_in_a_long_run_are_chance() -> None:
    points = [Point(step=step, loss=4.0 if step in (700, 900) else 2.0) for step in range(1, 1001)]
    assert not run(Spikes(Facts()), points)


def test_steps_that_changed_nothing_and_losses_that_are_not_finite_do_not_count() -> None:
    points = [Point(step=step, loss=2.0 if step % 40 else math.inf) for step in range(1, 401)]
    points += [Point(step=step, loss=9.0, skipped=True) for step in range(401, 420)]
    assert not run(Spikes(Facts()), points) and not run(Spike(Facts()), points)


def test_one_wrong_row_of_a_small_batch_is_no_spike() -> None:
    losses = [0.06 + 0.01 * (step % 3) for step in range(1, 60)]
    losses[29] = losses[45] = 0.6
    for targets, count in ((8, 0), (4000, 1)):
        detector = Spikes(Facts())
        points = [Point(step=step, loss=loss, targets=targets) for step, loss in enumerate(losses, 1)]
        assert len([found for point in points if (found := detector.observe(point))]) == count

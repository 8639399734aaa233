"""Losses and gradients of exactly zero: logs that look perfect, and runs that learn nothing."""

import math
from collections.abc import Iterable

import pytest

from etude.records.events import Finding
from etude.watch.detectors.zero import NoGradient
from etude.watch.point import Facts, Point
from etude.watch.watcher import Watcher


def observe(points: Iterable[Point]) -> list[Finding]:
    detector = NoGradient(Facts())
    return [found for point in points if (found := detector.observe(point))]


def falls(norm: float | None, *, last: float = 0.8, at: int = 114) -> list[Point]:
    """A loss of 0.8 and more, shown as 0 from one step on."""
    before = [last + 0.4 * math.exp(-step / 40) for step in range(1, at + 1)]
    first = [
        Point(step=step, loss=loss, grad_norm=None if norm is None else 0.6)
        for step, loss in enumerate(before, 1)
    ]
    return first + [Point(step=step, loss=0.0, grad_norm=norm) for step in range(at + 1, 200)]


@pytest.mark.parametrize(
    ("norm", "severity"), [(None, "warning"), (0.0, "error"), (math.nan, "error"), (math.inf, "error")]
)
def test_a_loss_that_a_filter_shows_as_zero_is_told_at_its_third_point(
    norm: float | None, severity: str
) -> None:
    (found,) = observe(falls(norm))
    assert (found.step, found.window, found.severity) == (117, [115, 117], severity)
    assert "not finite" in found.causes[0] and "0.8" in found.evidence


def test_zeros_are_not_called_a_collapse_of_the_first_pass() -> None:
    watcher = Watcher(steps_per_epoch=300)
    for point in falls(None):
        watcher.add(point)
    assert [found.kind for found in watcher.findings] == ["no_gradient"]


@pytest.mark.parametrize("norm", [None, 0.0])
def test_rows_whose_targets_are_all_masked_are_told_from_the_first_point_on(norm: float | None) -> None:
    (found,) = observe(Point(step=step, loss=0.0, grad_norm=norm) for step in range(1, 50))
    assert found.step == 10 and found.severity == "warning" and "masked" in found.causes[0]


def test_an_adapter_that_no_gradient_reaches_is_an_error_though_its_loss_moves() -> None:
    (found,) = observe(Point(step=step, loss=2 + 0.1 * (step % 3), grad_norm=0.0) for step in range(1, 50))
    assert found.step == 10 and found.severity == "error" and "no gradient" in found.causes[0]


@pytest.mark.parametrize("norm", [None, 0.0])
def test_a_loss_that_is_learnt_down_to_zero_is_left_alone(norm: float | None) -> None:
    """Easy labels, in a log that rounds."""
    losses = [round(0.7 * math.exp(-step / 8), 4) for step in range(200)]
    assert losses[-1] == 0.0
    points = [
        Point(step=step, loss=loss, grad_norm=norm if not loss else 0.3) for step, loss in enumerate(losses)
    ]
    assert observe(points) == []


def test_losses_of_a_policy_that_begin_at_zero_with_a_gradient_are_left_alone() -> None:
    losses = [0.0] * 40 + [0.0001 * step for step in range(40)]
    assert observe(Point(step=step, loss=loss, grad_norm=0.2) for step, loss in enumerate(losses)) == []


def test_steps_that_were_skipped_and_single_zeros_are_left_alone() -> None:
    points = [Point(step=step, loss=0.0 if step % 5 < 2 else 2.0, grad_norm=None) for step in range(100)]
    assert observe(points) == []
    assert observe(Point(step=step, loss=0.0, skipped=True) for step in range(100)) == []


def test_zeros_that_come_again_are_told_again() -> None:
    points = [Point(step=step, loss=0.0 if step % 20 > 10 else 2.0) for step in range(60)]
    assert [found.step for found in observe(points)] == [13, 33, 53]

"""Losses that fall too far before any row repeats."""

import re

import pytest

from etude.records.events import Finding
from etude.watch.detectors import collapse
from etude.watch.detectors.collapse import Collapse
from etude.watch.point import Facts, Point
from tests.watch.curves import story


def run(detector: Collapse, points: list[Point]) -> list[Finding]:
    return [finding for point in points if (finding := detector.observe(point))]


@pytest.mark.parametrize(
    ("every", "objective", "by"), [(1, "causal", 96), (10, "causal", 110), (10, None, 170)]
)
def test_the_fall_to_nothing_in_the_first_pass_is_found(every: int, objective: str | None, by: int) -> None:
    (finding,) = run(Collapse(Facts(objective=objective)), story(every))
    assert finding.kind == "first_pass_collapse" and finding.step <= by and finding.severity == "warning"
    assert "overfitting" not in finding.what and "no overfitting" in finding.advice
    assert collapse.EASY in finding.causes and len(finding.not_tested) == 5 and not finding.decided_by


def test_a_loss_that_stays_at_the_share_of_padding_names_padding_first() -> None:
    points = [Point(step=at, epoch=at / 500, loss=0.2 + 4.5 * 0.9**at) for at in range(1, 226)]
    (finding,) = run(Collapse(Facts(objective="causal")), points)
    assert finding.causes[0] == collapse.PADDING


def test_a_training_loss_half_of_validation_in_the_first_pass_is_no_overfitting() -> None:
    detector = Collapse(Facts(objective="causal"))
    points = [Point(step=at, epoch=at / 500, loss=3.0 * 0.99**at) for at in range(1, 101)]
    assert not run(detector, points)
    finding = detector.observe(Point(step=100, epoch=0.2, eval_loss=2.9, eval_error=0.1))
    assert finding is not None and finding.causes[0] == collapse.REPEATED and "2.9" in finding.evidence


def test_without_standard_errors_it_takes_two_evaluations() -> None:
    detector = Collapse(Facts())
    assert not run(detector, [Point(step=at, epoch=at / 500, loss=1.0) for at in range(1, 101)])
    assert detector.observe(Point(step=100, epoch=0.2, eval_loss=2.9)) is None
    assert detector.observe(Point(step=110, epoch=0.22, eval_loss=2.9)) is not None


def test_later_epochs_labels_and_low_starts_are_not_judged_by_a_floor() -> None:
    late = [Point(step=at, epoch=1 + at / 500, loss=3.64 * 0.9**at) for at in range(1, 200)]
    labels = [Point(step=at, epoch=at / 500, loss=3.64 * 0.9**at) for at in range(1, 200)]
    known = [Point(step=at, epoch=at / 500, loss=0.9 * 0.9**at) for at in range(1, 200)]
    assert not run(Collapse(Facts(objective="causal")), late)
    assert not run(Collapse(Facts(objective="classification")), labels)
    assert not run(Collapse(Facts(objective="causal")), known)


def test_validation_that_is_as_low_makes_an_unknown_kind_of_training_a_remark() -> None:
    points = story(10)
    points.insert(10, Point(step=100, epoch=100 / 1688, eval_loss=0.03))
    (finding,) = run(Collapse(Facts()), points)
    assert finding.severity == "info" and "the latest validation loss was 0.03" in finding.evidence
    (finding,) = run(Collapse(Facts(objective="causal")), points)
    assert finding.severity == "warning"


def test_without_epochs_the_first_pass_is_unknown() -> None:
    detector = Collapse(Facts())
    assert not run(detector, [Point(step=each.step, loss=each.loss) for each in story()])
    assert "no epochs" in str(detector.untold())
    detector = Collapse(Facts(objective="causal", steps_per_epoch=1688))
    assert run(detector, [Point(step=each.step, loss=each.loss) for each in story()])


@pytest.mark.parametrize("times", [2.5, 8, 32])
def test_a_loss_that_is_divided_once_more_names_its_scale_first(times: float) -> None:
    """Logged losses that are divided by the micro-batches of a step, while validation is not."""
    points = [Point(step=at, epoch=at / 300, loss=(1 + 2 * 0.99**at) / times) for at in range(1, 301)]
    for at in (50, 100, 150):
        points.insert(points.index(points[at]), Point(step=at, epoch=at / 300, eval_loss=1 + 2 * 0.99**at))
    (finding,) = run(Collapse(Facts()), points)
    said = re.search(r"step, ([0-9.]+) times that", finding.evidence)
    assert finding.causes[0] == collapse.SCALE and said
    assert float(said.group(1)) == pytest.approx(times, rel=0.02)


def test_a_gap_that_widens_is_of_no_scale() -> None:
    points = [Point(step=at, epoch=at / 300, loss=3 * 0.99**at) for at in range(1, 301)]
    for at in (250, 200, 150, 100, 50):
        points.insert(at, Point(step=at, epoch=at / 300, eval_loss=3 - at / 500))
    (finding,) = run(Collapse(Facts()), points)
    assert finding.causes[0] == collapse.REPEATED

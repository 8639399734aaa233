"""Figures that are not finite, and steps that were skipped."""

import math

import pytest

from etude.watch.detectors.finite import NonFinite, SkippedSteps
from etude.watch.point import Facts, Point


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", ["loss", "grad_norm", "eval_loss"])
def test_the_first_of_a_row_is_reported(figure: str, value: float) -> None:
    detector = NonFinite(Facts())
    assert detector.observe(Point(step=1, loss=2.0)) is None
    finding = detector.observe(Point(step=2, **{figure: value}))  # type: ignore[arg-type]
    assert finding is not None and finding.window == [2, 2] and str(value) in finding.evidence
    assert detector.observe(Point(step=3, **{figure: value})) is None  # type: ignore[arg-type]
    assert detector.observe(Point(step=3, tokens_per_second=4.0)) is None
    assert detector.observe(Point(step=4, **{figure: 2.0})) is None  # type: ignore[arg-type]
    assert detector.observe(Point(step=5, **{figure: value})) is not None  # type: ignore[arg-type]


def test_points_without_the_figure_do_not_make_it_whole() -> None:
    """A log has a line for each evaluation, with lines of training between them."""
    detector, found = NonFinite(Facts()), []
    for step in range(1, 6):
        found.append(detector.observe(Point(step=step, eval_loss=math.nan)))
        assert detector.observe(Point(step=step, loss=2.0)) is None
    assert found[0] is not None and found[1:] == [None] * 4


def test_a_skipped_step_is_a_warning_at_the_first_second_fourth_and_eighth() -> None:
    detector = SkippedSteps(Facts())
    said = []
    for step in range(1, 30):
        if step % 2:
            assert detector.observe(Point(step=step, loss=2.0, grad_norm=1.0)) is None
        elif found := detector.observe(Point(step=step, loss=math.nan, grad_norm=math.inf, skipped=True)):
            assert found.severity == "warning"
            said.append(found.step // 2)
    assert said == [1, 2, 4, 8]


@pytest.mark.parametrize(("precision", "many"), [("fp32", 10), ("bf16", 10), ("fp16", 30)])
def test_many_skipped_steps_in_a_row_are_an_error_with_a_lower_rate(precision: str, many: int) -> None:
    detector = SkippedSteps(Facts(precision=precision, peak_learning_rate=1e-2))
    found = [
        detector.observe(Point(step=step, loss=math.nan, grad_norm=math.nan, skipped=True))
        for step in range(5, 60)
    ]
    errors = [each for each in found if each and each.severity == "error"]
    assert [each.window for each in errors] == [[5, 4 + many]]
    assert errors[0].changes == {"optim.learning_rate": pytest.approx(3e-3)}
    assert NonFinite(Facts()).observe(Point(step=1, loss=math.nan, skipped=True)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_alone_is_a_remark_in_a_log_and_an_error_once_three_follow(value: float) -> None:
    """Loss scaling of fp16 skips such a step, and a log of another tool does not say so."""
    detector = NonFinite(Facts())
    broken = {7, 30, 60, 61, 62, 63}
    found = [
        detector.observe(Point(step=step, loss=2.0, grad_norm=value if step in broken else 1.0))
        for step in range(1, 80)
    ]
    assert [(each.step, each.severity) for each in found if each] == [
        (7, "info"), (30, "info"), (60, "info"), (62, "error"),
    ]  # fmt: skip


def test_a_norm_of_an_update_that_was_made_is_an_error_at_once() -> None:
    for precision in ("fp32", "bf16", "fp16"):
        found = NonFinite(Facts(precision=precision)).observe(Point(step=7, loss=2.0, grad_norm=math.inf))
        assert found is not None and found.severity == "error"
    found = NonFinite(Facts()).observe(Point(step=7, loss=math.nan, grad_norm=math.nan))
    assert found is not None and found.severity == "error"

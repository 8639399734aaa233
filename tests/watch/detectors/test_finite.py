"""Figures that are not finite."""

import math

import pytest

from etude.watch.detectors.finite import NonFinite
from etude.watch.point import Facts, Point


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", ["loss", "grad_norm", "eval_loss"])
def test_the_first_of_a_row_is_reported(figure: str, value: float) -> None:
    detector = NonFinite(Facts())
    assert detector.observe(Point(step=1, loss=2.0)) is None
    finding = detector.observe(Point(step=2, **{figure: value}))  # type: ignore[arg-type]
    assert finding is not None and finding.window == [2, 2] and str(value) in finding.evidence
    assert detector.observe(Point(step=3, **{figure: value})) is None  # type: ignore[arg-type]
    assert detector.observe(Point(step=4, loss=2.0)) is None
    assert detector.observe(Point(step=5, **{figure: value})) is not None  # type: ignore[arg-type]


def test_steps_that_fp16_skips_to_find_its_scale_are_no_fault() -> None:
    detector = NonFinite(Facts(precision="fp16"))
    assert detector.observe(Point(step=1, loss=2.0, grad_norm=math.inf, skipped=True)) is None
    assert detector.observe(Point(step=2, loss=math.nan, grad_norm=math.nan, skipped=True)) is not None

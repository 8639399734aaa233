"""The watch in anybody's loop."""

import math

import pytest

from etude.watch import Watcher
from etude.watch.point import Point


def test_a_healthy_curve_has_no_findings() -> None:
    watcher = Watcher(classes=100, steps=300)
    for step in range(1, 301):
        assert watcher.observe(step=step, loss=1.0 + 3.5 / step**0.3, grad_norm=1.0 + 1 / step) == []


def test_what_was_observed_after_the_step_that_a_run_goes_back_to_is_void() -> None:
    watcher = Watcher()
    for step in range(1, 6):
        watcher.observe(step=step, loss=1.0 if step < 5 else math.nan)
    assert [finding.kind for finding in watcher.findings] == ["non_finite"]
    assert watcher.observe(step=4, loss=1.0) == [] == watcher.findings
    for step in range(5, 9):
        assert watcher.observe(step=step, loss=1.0) == []


def test_unknown_figures_and_facts_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Watcher(colour="red")
    with pytest.raises(TypeError, match="colour"):
        Watcher().observe(step=1, colour="red")


def test_points_are_observations() -> None:
    one, other = Watcher(), Watcher()
    assert one.add(Point(step=3, loss=math.inf)) == other.observe(step=3, loss=math.inf) != []

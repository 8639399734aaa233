"""Log windows: what a log line is made of."""

import math

import pytest

from etude.records.events import Resource
from etude.records.window import OpenWindow, Window, join_short_end, mean_loss, mean_steps
from tests.records.samples import step

END = Resource(3, 200.0, 0.25, 0.01, 90.0, 1 << 20)


def test_a_window_ends_with_its_resources_and_the_next_begins_empty() -> None:
    window = OpenWindow()
    assert [window.add(event) for event in (step(1), step(2), step(3))] == [None] * 3
    ended = window.add(END)
    assert ended and ended.resource is END and (ended.step, ended.seconds) == (3, 1.5)
    assert window.add(END) is None and window.rest() is None
    window.add(step(4))
    rest = window.rest()
    assert rest and rest.resource is None and rest.step == 4


def test_the_loss_is_weighted_by_targets_and_leaves_skipped_steps_out() -> None:
    small, large = step(1, 2.0)._replace(targets=100), step(2, 5.0)._replace(targets=300)
    skipped = step(3, math.inf)._replace(skipped=True)
    assert mean_loss([small, large, skipped]) == pytest.approx((2 * 100 + 5 * 300) / 400)


def test_where_all_steps_are_skipped_their_loss_is_shown_and_without_targets_there_is_none() -> None:
    assert mean_loss([step(1, 7.0)._replace(skipped=True)]) == 7.0
    assert math.isnan(mean_loss([])) and math.isnan(mean_loss([step(1)._replace(targets=0)]))


def test_norm_and_rate_are_those_of_the_end() -> None:
    window = OpenWindow()
    window.add(step(1)._replace(grad_norm=2.0))
    window.add(step(2)._replace(grad_norm=math.inf, skipped=True, learning_rate=0.5))
    ended = window.add(END)
    assert ended and (ended.grad_norm, ended.learning_rate) == (2.0, 0.5)


def test_a_short_end_belongs_to_the_window_before_it() -> None:
    whole, half, less = ([step(n) for n in range(count)] for count in (10, 5, 4))
    joined = join_short_end([Window(whole), Window(whole), Window(less, END, 7.0)])
    assert [len(window.steps) for window in joined] == [10, 14]
    assert joined[-1].resource is END and joined[-1].elapsed == 7.0
    assert [len(window.steps) for window in join_short_end([Window(whole), Window(half)])] == [10, 5]
    assert join_short_end([Window(less)]) == [Window(less)]


def test_first_and_last_losses_are_means_of_a_log_window_or_ten_steps_and_at_most_half_of_all() -> None:
    assert [mean_steps(5, 40), mean_steps(1, 40), mean_steps(None, 40)] == [5, 10, 10]
    assert [mean_steps(50, 72), mean_steps(1, 6), mean_steps(1, 1), mean_steps(10, 0)] == [36, 3, 1, 1]

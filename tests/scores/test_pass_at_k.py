"""pass@k against the count of all choices of k samples, and its intervals over problems."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from etude.scores.pass_at_k import difference, figure, pass_at_k


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_share_of_choices_in_which_a_sample_passed(case: tuple[int, int, int]) -> None:
    samples, passed, k = case
    choices = list(itertools.combinations(range(samples), k))
    exact = Fraction(sum(min(choice) < passed for choice in choices), len(choices))
    assert pass_at_k(samples, passed, k) == pytest.approx(float(exact), abs=1e-12)


def test_it_is_not_the_biased_estimator() -> None:
    assert pass_at_k(2, 1, 2) == 1.0  # 1 - (1 - 1/2)^2 would be 0.75
    assert pass_at_k(200, 3, 100) == pytest.approx(0.8769, abs=1e-4)


def test_intervals_are_over_problems_and_differences_over_the_same_ones() -> None:
    counts = [(10, passed) for passed in (0, 0, 3, 5, 10, 10, 1, 7)]
    value, low, high = figure(counts, 1)
    assert value == pytest.approx(0.45) and 0 < low < value < high < 1
    same = difference(counts, counts, 5)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = difference([(10, 10)] * 8, counts, 1)
    assert better.value == pytest.approx(0.55) and better.low > 0 and not better.is_noise


@pytest.mark.parametrize("problems", [2, 5, 6, 164])
@pytest.mark.parametrize("passed", [0, 10])
def test_problems_that_all_end_alike_have_the_interval_of_the_binomial(problems: int, passed: int) -> None:
    exact = binomtest(problems * passed // 10, problems).proportion_ci(0.95, "exact")
    assert figure([(10, passed)] * problems, 1) == pytest.approx((passed / 10, exact.low, exact.high))


def test_a_few_problems_do_not_tell_all_from_none() -> None:
    # The sign test of n problems has p = 2 / 2^n, which is below 0.05 from six on.
    for problems in (2, 5, 6, 9):
        found = difference([(1, 1)] * problems, [(1, 0)] * problems, 1)
        assert found.value == 1 and found.is_noise == (2 / 2**problems > 0.05)

import math

from hypothesis import given
from hypothesis import strategies as st

from etude.verify.ranges import Range, around, exactly

finite = st.floats(-1e6, 1e6)


@given(finite, finite, finite, finite)
def test_arithmetic_of_ranges_holds_that_of_their_numbers(a: float, b: float, c: float, d: float) -> None:
    first, second = Range(min(a, b), max(a, b)), Range(min(c, d), max(c, d))
    for x in (a, b):
        for y in (c, d):
            assert (first + second).meets(exactly(x + y))
            assert (first - second).meets(exactly(x - y))
            assert (first * second).meets(exactly(x * y))
            if not second.low <= 0 <= second.high:
                assert (first / second).meets(exactly(x / y))


def test_a_division_by_a_range_with_zero_and_an_overflow_decide_nothing() -> None:
    assert (exactly(1.0) / Range(-1.0, 1.0)).meets(exactly(1e9))
    assert exactly(1e9).map(math.exp).meets(exactly(3.0))


def test_ranges_apart_do_not_meet() -> None:
    assert not around(2.85, 0.005).meets(exactly(2.86))
    assert around(2.85, 0.005).meets(exactly(2.855))
    assert exactly(100.0).widen(0.1).meets(exactly(91.0))

"""Numbers as logs write them."""

import math

import pytest

from etude.watch.logs.numbers import number_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2.5", 2.5), (" 2.5 ", 2.5), ("1e-4", 1e-4), ("-.5", -0.5), ("+3", 3.0), ("1,234", 1234.0),
        ("1,234,567.5", 1234567.5), ("12.5%", 0.125), ("1.5k", 1500.0), ("2M", 2e6), ("NaN", math.nan),
        ("-Infinity", -math.inf), ("inf", math.inf), ("tensor(2.5, device='cuda:0')", 2.5), ("[0.001]", 0.001),
        ("np.float64(2.5)", 2.5), ("'2.5'", 2.5), (3, 3.0), (True, 1.0), (10**400, math.inf), ("1e999", math.inf),
        ("", None), (" ", None), ("No log", None), ("n/a", None), ("None", None), ("1.2.3", None), ("1,23", None),
        ("2026-01-02", None), ("00:10", None), ("x" * 10_000, None), ("1" * 10_000, None), (None, None), ([1], None),
        ("info", None), ("2.5 of 3", None),
    ],
)  # fmt: skip
def test_a_cell_holds_a_number_or_none(text: object, number: float | None) -> None:
    found = number_of(text)
    assert found == number or (
        number is not None and math.isnan(number) and found is not None and math.isnan(found)
    )

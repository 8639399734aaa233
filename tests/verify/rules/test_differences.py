"""Differences and ratios whose two figures stand somewhere else."""

import pytest

from tests.verify.checked import contradicted, fits

TABLE = (
    "| | Ada | Bob |\n|---|---|---|\n| parameters (M) | 60 | 240 |\n| seconds per 100 texts | 2.0 | 5.0 |\n\n"
)
SERIES = "| step | train loss | val loss |\n|---|---|---|\n| 100 | 3.05 | 3.11 |\n| 200 | 2.16 | 2.22 |\n| 300 | 1.58 | 1.69 |\n\n"
CHANGES = "| variant | score | change |\n|---|---|---|\n| base | 61.2 | |\n| a | 59.8 | -1.4 |\n| b | 58.4 | {} |\n| c | 57.0 | -4.2 |\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (TABLE + "Bob is 4 times as large as Ada and takes {} times as long.", {"2.5": False, "3.2": True}),
        (SERIES + "Between step 200 and step 300 the train loss fell by {}.", {"0.58": False, "0.78": True}),
        ("The loss went from 1.402 to 0.921, a fall of {}.", {"0.481": False, "0.581": True}),
        ("Accuracy rose from 61.2 % to 68.4 %.\n\nThe accuracy is a relative {} higher.", {"11.8 %": False, "7.2 %": True}),
        (CHANGES, {"-2.8": False, "-3.8": True}),
    ],
)  # fmt: skip
def test_a_difference_that_no_pair_gives_is_contradicted(text: str, wrong: dict[str, bool]) -> None:
    assert {figure: bool(contradicted(text.format(figure))) for figure in wrong} == wrong


def test_the_value_that_fits_is_told() -> None:
    assert fits("The loss went from 1.402 to 0.921, a fall of 0.581.") == ["about 0.481"]


def test_what_is_supposed_is_no_claim() -> None:
    assert contradicted(TABLE + "Bob would be 9 times as quick as Ada.") == []

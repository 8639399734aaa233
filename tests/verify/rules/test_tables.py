"""Totals, changes and columns that grow together."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('| Phase | Time |\n|---|---|\n| A | 2.5 h |\n| B | 7.0 h |\n| Total | 9.5 h |\n', []),
        ('| Phase | Time |\n|---|---|\n| A | 2.5 h |\n| B | 7.0 h |\n| Total | 8.5 h |\n', ['Total 8.5 h']),
        ('| Metric | Before | After | Change |\n|---|---|---|---|\n| F1 | 0.700 | 0.770 | +10.0 % |\n', []),
        ('| Metric | Before | After | Change |\n|---|---|---|---|\n| F1 | 0.700 | 0.770 | +7.0 points |\n', []),
        ('| Metric | Before | After | Change |\n|---|---|---|---|\n| F1 | 0.700 | 0.770 | +0.070 |\n', []),
        ('| Metric | Before | After | Change |\n|---|---|---|---|\n| F1 | 0.700 | 0.770 | +15.0 % |\n', ['F1 +15.0 %']),
        ('| Step | Tokens | Elapsed |\n|---|---|---|\n| 100 | 1.00 M | 1.0 h |\n| 200 | 2.00 M | 2.0 h |\n| 300 | 3.00 M | 3.0 h |\n| 400 | 4.00 M | 4.0 h |\n', []),
        ('| Step | Tokens | Elapsed |\n|---|---|---|\n| 100 | 1.00 M | 1.0 h |\n| 200 | 2.50 M | 2.0 h |\n| 300 | 3.00 M | 3.0 h |\n| 400 | 4.00 M | 4.0 h |\n', ['Tokens 2.50 M']),
        ('| Step | Tokens | Elapsed |\n|---|---|---|\n| 100 | 1.00 M | 1.0 h |\n| 200 | 2.00 M | 2.0 h |\n| 300 | 3.00 M | 1.5 h |\n| 400 | 4.00 M | 4.0 h |\n', ['Elapsed 1.5 h']),
        ('| Model | F1 |\n|---|---|\n| a | 0.5 |\n| b | 0.7 |\n| Mean | 0.8 |\n', ['Mean 0.8']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

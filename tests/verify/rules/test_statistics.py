"""Claims on the best, last or one step of a series."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe best validation loss was 1.70 at step 200.\n', []),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe best validation loss was 1.80.\n', ['validation loss 1.80']),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe best validation loss was 1.80 at step 300.\n', ['best at step 300']),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe final validation loss was 1.70.\n', ['validation loss 1.70']),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe final training loss was 1.20.\n', []),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nValidation loss was 2.00 at step 100.\n', ['Validation loss 2.00']),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nBest step: 200\n', []),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nBest step: 300\n', ['Best step 300']),
        ('| Step | Train loss | Val loss |\n|---|---|---|\n| 100 | 2.00 | 2.10 |\n| 200 | 1.50 | 1.70 |\n| 300 | 1.20 | 1.80 |\n\nThe mean training loss was 1.57.\n', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

"""Counts of settings."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('LR {2e-5, 5e-5} x batch {16, 32} x epochs {3, 5} = 8 configurations', []),
        ('LR {2e-5, 5e-5} x batch {16, 32} x epochs {3, 5} = 12 configurations', ['12']),
        ('| Tier | Models | LR | Batch | Configs | Runs |\n|---|---|---|---|---|---|\n| a | 2 | {1, 2} | {3, 4} | 4 | 8 |\n', []),
        ('| Tier | Models | LR | Batch | Configs | Runs |\n|---|---|---|---|---|---|\n| a | 2 | {1, 2} | {3, 4} | 6 | 12 |\n', ['Configs 6']),
        ('2 models with 12 configurations each: 36 runs', ['36']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

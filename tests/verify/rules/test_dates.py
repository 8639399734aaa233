"""Dates and what lies between them."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('Started on 2025-05-01, finished on 2025-05-04.', []),
        ('Started on 2025-05-01, finished on 2025-04-28.', ['2025-04-28']),
        ('On 2025-02-30 it ended.', ['2025-02-30']),
        ('Monday, 2025-03-03', []),
        ('Monday, 2025-03-04', ['Monday, 2025-03-04']),
        ('Started: March 5, 2025\n\nFinished: March 2, 2025', ['March 2, 2025']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

"""Text that was decoded twice."""

import pytest

from tests.verify.checked import contradicted, fits


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('It isnâ€™t so.', ['â€™']),
        ('CafÃ© prices', ['Ã©']),
        ('Ångström, São Paulo, naïve – “quoted”', []),
        ('Ã alone', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_the_sign_that_was_meant_is_named() -> None:
    assert fits("It isnâ€™t so.") == ["\u2019"]

"""Claims that need data."""

import pytest

from tests.verify.checked import contradicted, verdicts


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('Loss fell in 225 of 5,064 steps of the first epoch. The model overfitted.', ['overfitted']),
        ('| Epoch | Training loss | Validation loss |\n|---|---|---|\n| 1 | 0.60 | 0.50 |\n| 2 | 0.40 | 0.45 |\n| 3 | 0.20 | 0.60 |\n\nThere was no overfitting.\n', ['no overfitting']),
        ('| Epoch | Training loss | Validation loss |\n|---|---|---|\n| 1 | 0.60 | 0.50 |\n| 2 | 0.40 | 0.45 |\n| 3 | 0.20 | 0.60 |\n\nThe training loss fell steadily.\n', []),
        ('| Epoch | Training loss | Validation loss |\n|---|---|---|\n| 1 | 0.60 | 0.50 |\n| 2 | 0.40 | 0.45 |\n| 3 | 0.20 | 0.60 |\n\nThe validation loss fell steadily.\n', ['steadily']),
        ('We use dropout to prevent overfitting.', []),
        ('F1 0.81, significantly better than F1 0.79.', ['significantly']),
        ('F1 0.81 with n = 500, significantly better than F1 0.79.', []),
        ('The loss is 0.1. No validation set was kept. The model is overfitting.', ['is overfitting']),
        ('It is production-ready. The model has not been evaluated.', ['production-ready']),
        ('25,000 rows, batch 10: 2,500 steps an epoch. At step 1,900 it has memorised the data.', ['memorised']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_claims_without_data_are_left_open() -> None:
    for text in (
        "The model is production-ready.",
        "It has overfitted.",
        "F1 0.81, better than F1 0.79.",
    ):
        assert [verdict for verdict, _ in verdicts(text, "absent data")] == ["cannot be settled"]
    assert verdicts("The model is not production-ready.", "absent data") == []

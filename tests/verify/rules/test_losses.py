"""Perplexity, the loss of a guess, and bounds."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('Validation loss 2.85, perplexity 17.3.', []),
        ('Validation loss 2.85, perplexity 18.3.', ['perplexity 18.3']),
        ('| Step | Loss | Perplexity |\n|---|---|---|\n| 1 | 2.00 | 7.39 |\n| 2 | 1.00 | 2.27 |\n', ['Perplexity 2.27']),
        ('Trained from scratch. Vocabulary size: 50,257\n\nInitial loss: 10.9', []),
        ('Trained from scratch. Vocabulary size: 50,257\n\nInitial loss: 4.9', ['loss 4.9']),
        ('Accuracy reached 104 %.', ['Accuracy 104 %']),
        ('Dropout: 1.2', ['Dropout 1.2']),
        ('Perplexity: 0.7', ['Perplexity 0.7']),
        ('F1 81.2', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

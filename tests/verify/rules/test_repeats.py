"""One setting said twice."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('| Parameter | Value |\n|---|---|\n| Epochs | 5 |\n\nThe model was trained for 6 epochs.', ['epochs 6']),
        ('| Parameter | Value |\n|---|---|\n| Epochs | 5 |\n\nThe model was trained for 5 epochs.', []),
        ('Batch size: 32\n\nBatch size 64 ran out of memory.', []),
        ('| | V1 | V2 |\n|---|---|---|\n| Epochs | 5 | 6 |\n', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_examples_of_settings_in_two_blocks_are_no_contradiction() -> None:
    assert contradicted("```toml\nseq_len = 8192\n```\n\nOr:\n\n```toml\nseq_len = 65536\n```\n") == []

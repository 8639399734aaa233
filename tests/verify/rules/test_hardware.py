"""Speeds and memory against the GPUs that are named."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('A model with 6.74 B parameters on 8 H100 GPUs: 62,000 tokens/s.', []),
        ('A model with 6.74 B parameters on 8 H100 GPUs: 620,000 tokens/s.', ['620,000 tokens/s']),
        ('A model with 6.74 B parameters on 8 H100 GPUs: 62,000 tokens/s, MFU 32 %.', []),
        ('A model with 6.74 B parameters on 8 H100 GPUs: 62,000 tokens/s, MFU 71 %.', ['MFU 71 %']),
        ('On one A100 80GB the peak GPU memory was 91 GB per GPU.', ['peak GPU memory 91 GB']),
        ('On one A100 80GB the peak GPU memory was 71 GB per GPU.', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

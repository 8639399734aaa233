"""Bytes by the number format that stands beside them."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The model has 1.10B parameters. Its weights in bfloat16 take 2.2 GB. The weights in float32 take 4.4 GB.", []),
        ("The model has 1.10B parameters. Its weights in bfloat16 take 2.2 GB. The weights in float32 take 2.2 GB.", ["weights 2.2 GB"]),
        ("With mixed precision everything is halved, also the moments of Adam.", ["mixed precision everything is halved"]),
        ("With mixed precision the activations take half of the memory.", []),
    ],
)  # fmt: skip
def test_bytes_follow_the_format(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

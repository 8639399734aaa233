"""Rates against the schedule that is named."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('- Peak learning rate: 1e-3\n- Schedule: cosine\n- Warm-up steps: 100\n- Max steps: 1,100\n\n| Step | LR |\n|---|---|\n| 50 | 5.00e-4 |\n| 100 | 1.00e-3 |\n| 600 | 5.00e-4 |\n', []),
        ('- Peak learning rate: 1e-3\n- Schedule: linear\n- Warm-up steps: 100\n- Max steps: 1,100\n\n| Step | LR |\n|---|---|\n| 50 | 5.00e-4 |\n| 100 | 1.00e-3 |\n| 600 | 5.00e-4 |\n', []),
        ('- Peak learning rate: 1e-3\n- Schedule: cosine\n- Warm-up steps: 100\n- Max steps: 1,100\n\n| Step | LR |\n|---|---|\n| 50 | 5.00e-4 |\n| 100 | 1.00e-3 |\n| 600 | 7.50e-4 |\n', ['LR 7.50e-4']),
        ('- Peak learning rate: 1e-3\n- Schedule: constant\n- Warm-up steps: 100\n- Max steps: 1,100\n\n| Step | LR |\n|---|---|\n| 50 | 5.00e-4 |\n| 100 | 1.00e-3 |\n| 600 | 1.00e-3 |\n', []),
        ('- Peak learning rate: 1e-3\n- Schedule: linear\n- Warm-up steps: 100\n- Max steps: 1,100\n\n| Step | LR |\n|---|---|\n| 50 | 5.00e-4 |\n| 100 | 1.00e-3 |\n| 600 | 2.00e-3 |\n', ['learning rate 2.00e-3']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

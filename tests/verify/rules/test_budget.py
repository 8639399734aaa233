"""Batch, steps, tokens, speed and time."""

import pytest

from tests.verify.checked import contradicted, verdicts


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('- Global batch size: 512\n- Sequence length: 2,048\n- Total steps: 1,000\n- Tokens: 1.05 B\n', []),
        ('- Global batch size: 512\n- Sequence length: 2,048\n- Total steps: 1,000\n- Tokens: 2.10 B\n', ['Tokens 2.10 B']),
        ('- per_device_train_batch_size: 8\n- gradient_accumulation_steps: 4\n- num_gpus: 2\n- global_batch_size: 64\n', []),
        ('- per_device_train_batch_size: 8\n- gradient_accumulation_steps: 4\n- num_gpus: 2\n- global_batch_size: 96\n', ['global_batch_size 96']),
        ('50,000 samples, batch size 32, 10 epochs: 15,630 steps.', []),
        ('50,000 samples, batch size 32: 1,563 steps per epoch.', []),
        ('50,000 samples, batch size 32: 1,650 steps per epoch.', ['steps per epoch 1,650']),
        ('100 examples, 3 epochs, 204 s (1.468 samples/s)', []),
        ('100 examples, 3 epochs, 204 s (2.468 samples/s)', ['samples/s 2.468']),
        ('- Warm-up steps: 2000\n- Max steps: 1000\n', ['Warm-up steps 2000']),
        ('- Warm-up steps: 100\n- Warm-up ratio: 0.1\n- Max steps: 1000\n', []),
        ('- Steps: 1000\n- Training time: 50 min\n- Step time: 3.0 s\n', []),
        ('- Steps: 1000\n- Training time: 90 min\n- Step time: 3.0 s\n', ['Step time 3.0 s']),
        ('We trained for 3 epochs. The best was at epoch 4.5.', ['epoch 4.5']),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_a_batch_that_fits_with_an_accumulation_that_is_not_said_is_left_open() -> None:
    text = "- Global batch size: 512\n- Per-device batch size: 64\n- GPUs: 4\n"
    assert verdicts(text, "effective batch") == [("cannot be settled", "Global batch size 512")]

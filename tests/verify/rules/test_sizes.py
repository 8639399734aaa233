"""Parameters, adapters and bytes."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('LoRA on Qwen2.5-Coder-1.5B-Instruct, rank 8 on q_proj, k_proj, v_proj and o_proj. Trainable parameters: 2,179,072\n', []),
        ('LoRA on Qwen2.5-Coder-1.5B-Instruct, rank 16 on q_proj, k_proj, v_proj and o_proj. Trainable parameters: 2,179,072\n', ['Trainable parameters 2,179,072']),
        ('- Trainable parameters: 2,179,072\n- Total parameters: 1,545,893,376\n- Trainable share: 0.141 %\n', []),
        ('- Trainable parameters: 2,179,072\n- Total parameters: 1,545,893,376\n- Trainable share: 1.41 %\n', ['Trainable share 1.41 %']),
        ('- Vocabulary size: 50,257\n- Hidden size: 1024\n- Layers: 24\n- Embedding parameters: 51,463,168\n- Parameters: 303,171,584\n', []),
        ('- Vocabulary size: 50,257\n- Hidden size: 1024\n- Layers: 24\n- Embedding parameters: 61,463,168\n- Parameters: 803,171,584\n', ['Embedding parameters 61,463,168', 'Parameters 803,171,584']),
        ('- Hidden size: 512\n- Attention heads: 10\n', ['Attention heads 10']),
        ('The model has 1,000,000,000 parameters. The bf16 weights take 2 GB.', []),
        ('The model has 1,000,000,000 parameters. The bf16 weights take 4 GB.', ['weights 4 GB']),
        ('Optimizer states take 8 GB for 1,000,000,000 parameters.', []),
        ('Mixed precision with AdamW halved the memory of the training.', ['Mixed precision with AdamW halved the memory of the training']),
        ('FP16 halves the memory of activations.', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong

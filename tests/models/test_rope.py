"""Rotary frequencies against those of transformers."""

from typing import Any

import pytest
import torch

from etude.models.decoder_config import DecoderConfig
from etude.models.rope import inverse_frequencies

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": LLAMA3,
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32_768},
    "yarn with all keys": {
        "factor": 40.0, "original_max_position_embeddings": 4096, "beta_fast": 16, "beta_slow": 2,
        "mscale": 0.707, "mscale_all_dim": 1.0, "truncate": False,
    },
    "yarn by its contexts": {"factor": None, "original_max_position_embeddings": 4096},
    "yarn with its factor": {"factor": 2.0, "original_max_position_embeddings": 4096, "attention_factor": 1.3},
}  # fmt: skip


@pytest.mark.parametrize(("name", "said"), SCALINGS.items(), ids=SCALINGS)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_frequencies_and_factor_are_those_of_transformers(
    name: str, said: dict[str, Any], head_dim: int
) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    kind = name.split()[0]
    rope = {"rope_type": kind, "rope_theta": 5e5, **said}
    values = LlamaConfig(
        hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, max_position_embeddings=131_072,
        rope_parameters=rope,
    )  # fmt: skip
    theirs = LlamaRotaryEmbedding(values)
    config = DecoderConfig.from_hf(values.to_dict())
    ours = inverse_frequencies(head_dim, config.rope_theta, config.rope_scaling)
    torch.testing.assert_close(ours, theirs.inv_freq.float(), rtol=1e-6, atol=0)
    factor = config.rope_scaling.attention_factor if config.rope_scaling else 1.0
    assert factor == pytest.approx(theirs.attention_scaling, rel=1e-6)

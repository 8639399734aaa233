"""The configuration of an encoder-decoder against files that others wrote."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.t5 import T5
from etude.models.t5_config import T5Config

V10 = T5Config(97, 3, 2, 4, 32, 80, 8, buckets=8, max_distance=20)
CONFIGS = {
    "t5": V10,
    "t5 1.1": replace(V10, activation="gated-gelu", tied=False, scaled=False, n_decoder_layer=4),
    "t5 narrow heads": replace(V10, n_head=2, head_dim=4, activation="gated-silu", dropout=0.1, start_id=3),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_config_survives_what_transformers_writes(config: T5Config) -> None:
    from transformers import T5Config as TheirConfig

    written = TheirConfig(**config.to_hf(eos_id=1, pad_id=0))
    values = json.loads(written.to_json_string(use_diff=False))
    assert T5Config.from_hf(values, has_head=not config.tied) == config


def test_config_of_codet5_is_read() -> None:
    values = {
        "_name_or_path": "/content/drive/MyDrive/CodeT5", "architectures": ["T5ForConditionalGeneration"],
        "bos_token_id": 1, "d_ff": 3072, "d_kv": 64, "d_model": 768, "decoder_start_token_id": 0,
        "dropout_rate": 0.1, "eos_token_id": 2, "feed_forward_proj": "relu", "gradient_checkpointing": False,
        "id2label": {"0": "LABEL_0"}, "initializer_factor": 1.0, "is_encoder_decoder": True,
        "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512,
        "num_decoder_layers": 12, "num_heads": 12, "num_layers": 12, "output_past": True, "pad_token_id": 0,
        "relative_attention_num_buckets": 32, "task_specific_params": {"summarization": {"num_beams": 4}},
        "torch_dtype": "float32", "transformers_version": "4.10.0.dev0", "use_cache": True,
        "vocab_size": 32100,
    }  # fmt: skip
    config = T5Config.from_hf(values)
    assert config == T5Config(32_100, 12, 12, 12, 768, 3072, 64, dropout=0.1)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in T5(config).parameters()) == 222_882_048


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model_type": "mt5"}, "model_type is 'mt5'; expected t5"),
        ({"unheard_of": 1}, "unknown key 'unheard_of'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False; this model has only True"),
        ({"d_model": "many"}, "d_model is 'many'; expected a whole number"),
        ({"num_heads": 0}, "num_heads is 0; expected a whole number from 1"),
        ({"dropout_rate": 7}, "dropout_rate is 7; expected a number from 0 to below 1"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; expected true or false"),
        ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'gated-tanh'; expected relu, silu, gelu"),
        ({"feed_forward_proj": 3}, "feed_forward_proj is 3; expected a name"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn is 'gelu', but feed_forward_proj is 'relu'"),
        ({"relative_attention_num_buckets": 2}, "relative_attention_num_buckets is 2; expected at least 4"),
        (
            {"relative_attention_max_distance": 4},
            "relative_attention_max_distance is 4; expected more than half",
        ),
        ({"decoder_start_token_id": 97}, "decoder_start_token_id is 97, which is not among 97 tokens"),
    ],
)
def test_what_this_model_has_not_is_refused_by_name(changed: dict[str, Any], reason: str) -> None:
    values = V10.to_hf(eos_id=1, pad_id=0)
    assert T5Config.from_hf(values) == V10
    with pytest.raises(InputError, match=r"^config\.json: ") as raised:
        T5Config.from_hf(values | changed)
    assert reason in str(raised.value) and "\n" not in str(raised.value)

"""The words of config.json."""

import json
from dataclasses import replace

import pytest

from etude.errors import InputError
from etude.models.decoder_config import DecoderConfig

LLAMA = DecoderConfig(
    vocab_size=97, n_layer=2, n_head=4, n_kv_head=2, n_embd=48, n_ffn=80, head_dim=12, context=64, tied=False
)
CONFIGS = {
    "llama": LLAMA,
    "mistral": replace(LLAMA, sliding_window=5, tied=True),
    "uneven": replace(LLAMA, n_head=5, n_kv_head=5, head_dim=8),
    "qwen2": replace(LLAMA, qkv_bias=True, tied=True, rope_theta=1e6),
    "qwen3": replace(LLAMA, qk_norm=True, head_dim=16, dropout=0.1, norm_eps=1e-5),
    "qwen3 sliding": replace(LLAMA, qk_norm=True, sliding_window=7),
    "qwen3 sliding first": replace(LLAMA, qk_norm=True, sliding_window=7, full_layers=(1,)),
    "qwen2 sliding last": replace(LLAMA, qkv_bias=True, sliding_window=7, full_layers=(0,)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_config_survives_the_round_trip_through_json(config: DecoderConfig) -> None:
    assert DecoderConfig.from_hf(json.loads(json.dumps(config.to_hf(eos_id=3)))) == config


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_config_survives_what_transformers_writes(config: DecoderConfig) -> None:
    from transformers import AutoConfig

    values = config.to_hf(eos_id=3)
    written = AutoConfig.for_model(**values)
    assert DecoderConfig.from_hf(json.loads(written.to_json_string(use_diff=False))) == config
    assert type(written).__name__.removesuffix("Config") == values["architectures"][0].removesuffix(
        "ForCausalLM"
    )


LLAMA3 = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"logit_scale": 2.0}, "logit_scale"),
        ({"model_type": "gpt2"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary positions"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "a part of each head"),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"num_key_value_heads": 3}, "n_kv_head"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"use_mrope": True}, "use_mrope"),
        ({"rope_parameters": "default"}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rotary positions"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_theta"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor of rotary positions"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": "x"}}, "mscale"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": 0}}, "truncate"),
        ({"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor is 1"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor of yarn rotary positions is missing"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": None}},
            "factor of linear rotary positions is missing",
        ),
        *(
            (
                {"rope_parameters": {k: v for k, v in LLAMA3.items() if k != key}},
                f"{key} of llama3 .* is missing",
            )
            for key in ("factor", "low_freq_factor", "high_freq_factor")
        ),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rotary positions"),
    ],
)
def test_what_the_decoder_does_not_have_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        DecoderConfig.from_hf(LLAMA.to_hf(eos_id=None) | changes)
    assert "\n" not in str(caught.value)


def test_blocks_may_differ_in_their_window_and_in_nothing_else() -> None:
    values = CONFIGS["qwen3 sliding"].to_hf(eos_id=None)
    config = DecoderConfig.from_hf(values | {"layer_types": ["full_attention", "sliding_attention"]})
    assert [config.window(layer) for layer in range(2)] == [None, 7]
    with pytest.raises(InputError, match="layer_types"):
        DecoderConfig.from_hf(values | {"layer_types": ["full_attention", "linear_attention"]})
    for malformed in (3, [[1], [2]], ["full_attention"]):
        with pytest.raises(InputError, match="layer_types"):
            DecoderConfig.from_hf(values | {"layer_types": malformed})


def test_published_qwen2_config_is_read() -> None:
    # Qwen/Qwen2.5-Coder-1.5B, config.json: the window is there but not used.
    published = {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02,
        "intermediate_size": 8960, "max_position_embeddings": 32768, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": True,
        "use_sliding_window": False, "vocab_size": 151936,
    }  # fmt: skip
    config = DecoderConfig.from_hf(published)
    assert (config.head_dim, config.qkv_bias, config.tied, config.sliding_window) == (128, True, True, None)

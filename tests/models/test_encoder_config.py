"""The configuration of an encoder against the files that transformers writes."""

import json
from typing import Any

import pytest

from etude.errors import InputError
from etude.models.encoder_config import EncoderConfig
from tests.models.encoders import CONFIGS, ROBERTA, with_head


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("head", ("masked", "classification"))
def test_config_survives_what_transformers_writes(config: EncoderConfig, head: str) -> None:
    from transformers import AutoConfig

    config = with_head(config, head)
    written = AutoConfig.for_model(**config.to_hf(bos_id=0, eos_id=2))
    for use_diff in (False, True):
        assert EncoderConfig.from_hf(json.loads(written.to_json_string(use_diff=use_diff))) == config


def test_labels_keep_their_names() -> None:
    values = ROBERTA.to_hf(label_names=["safe", "unsafe", "unknown"])
    assert values["id2label"] == {"0": "safe", "1": "unsafe", "2": "unknown"}
    assert values["label2id"] == {"safe": 0, "unsafe": 1, "unknown": 2}


def test_published_configs_are_read() -> None:
    """config.json of microsoft/codebert-base and of sentence-transformers/all-MiniLM-L6-v2."""
    shared = {"attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1}
    codebert = shared | {
        "architectures": ["RobertaModel"], "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514, "model_type": "roberta", "num_attention_heads": 12,
        "num_hidden_layers": 12, "output_past": True, "pad_token_id": 1, "type_vocab_size": 1,
        "vocab_size": 50265,
    }  # fmt: skip
    mini_lm = shared | {
        "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
        "gradient_checkpointing": False, "hidden_size": 384, "initializer_range": 0.02,
        "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
        "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0,
        "position_embedding_type": "absolute", "transformers_version": "4.8.2", "type_vocab_size": 2,
        "use_cache": True, "vocab_size": 30522,
    }  # fmt: skip
    assert EncoderConfig.from_hf(codebert) == EncoderConfig(50_265, 12, 12, 768, 3072, 512)
    assert EncoderConfig.from_hf(mini_lm) == EncoderConfig(
        30_522, 6, 12, 384, 1536, 512, type_vocab_size=2, norm_eps=1e-12, pad_id=0, family="bert"
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "modernbert"}, "model_type"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"embedding_size": 128}, "embedding_size"),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"hidden_size": 50}, "n_embd"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"classifier_dropout": "no"}, "classifier_dropout"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"pad_token_id": 97, "max_position_embeddings": 130}, "padding token"),
        ({"max_position_embeddings": 2}, "max_position_embeddings"),
        ({"problem_type": "regression"}, "problem_type"),
        ({"id2label": None, "num_labels": "three"}, "num_labels"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        EncoderConfig.from_hf(ROBERTA.to_hf() | changes)
    assert "\n" not in str(refused.value)

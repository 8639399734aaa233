"""Ready sizes, and the decoder that a recipe's [model] asks for."""

from dataclasses import fields
from typing import Any

from etude.errors import InputError
from etude.models.config import DecoderConfig
from etude.recipe.schema import Model

PRESETS: dict[str, dict[str, Any]] = {
    "300m": {  # 303,171,584 unique parameters
        "n_layer": 24, "n_head": 16, "n_kv_head": 16, "n_embd": 1024, "n_ffn": 2048,
        "vocab_size": 50_257, "context": 2048, "tied": True,
    },
    "500m": {  # 500,528,640
        "n_layer": 22, "n_head": 20, "n_kv_head": 20, "n_embd": 1280, "n_ffn": 3456,
        "vocab_size": 50_257, "context": 2048, "tied": True,
    },
    "1b": {  # 999,538,688
        "n_layer": 19, "n_head": 16, "n_kv_head": 8, "n_embd": 2048, "n_ffn": 5632,
        "vocab_size": 50_257, "context": 2048, "tied": True,
    },
}  # fmt: skip


def decoder_config(model: Model, *, vocab_size: int, seq_len: int) -> DecoderConfig:
    """The decoder that a recipe asks for: its own keys over its preset over the defaults.

    vocab_size: tokens of the tokenizer; the embedding may have more rows. seq_len: tokens of a sample; the context is
    at least that.

    Raises: InputError if keys do not fit each other or the tokenizer is larger than the embedding.
    """
    preset = PRESETS[model.preset] if model.preset is not None else {}
    names = [field.name for field in fields(DecoderConfig)]
    given = {name: getattr(model, name) for name in names if getattr(model, name, None) is not None}
    values = {"n_layer": 6, "n_head": 6, "n_embd": 384} | preset | given
    n_head, n_embd = values["n_head"], values["n_embd"]
    if "head_dim" not in values and (n_embd % n_head or (n_embd // n_head) % 2):
        raise InputError(
            f"model.n_embd is {n_embd}, which {n_head} heads do not share evenly; "
            f"use a multiple of {2 * n_head}, or set head_dim"
        )
    if model.vocab_size is None:
        values["vocab_size"] = max(vocab_size, preset.get("vocab_size", 0))
    elif model.vocab_size < vocab_size:
        raise InputError(
            f"model.vocab_size is {model.vocab_size} but the tokenizer has {vocab_size} tokens; "
            f"leave it out, or use at least {vocab_size}"
        )
    derived = {"n_kv_head": n_head, "n_ffn": -(-8 * n_embd // (3 * 64)) * 64, "head_dim": n_embd // n_head}
    return DecoderConfig(**(derived | values | {"context": max(seq_len, preset.get("context", 0))}))

"""Ready sizes, the decoder of a recipe's [model], and models people fine-tune, known without their files."""

from dataclasses import dataclass, fields
from typing import Any

from etude.errors import InputError
from etude.models.decoder_config import DecoderConfig
from etude.recipe.model import Model

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

    vocab_size: tokens of the tokenizer; the embedding may have more rows. seq_len: tokens of a sample; the
    context is at least that. Raises: InputError if keys, or tokenizer and embedding, do not fit each other.
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
    context = max(seq_len, preset.get("context", 0))
    if model.layer_window is not None:
        values |= _layer_windows(model.layer_window, values["n_layer"])
    if (window := values.get("sliding_window") or 0) > context:
        key = "sliding_window" if model.layer_window is None else "layer_window"
        wrong = f"model.{key} has a window of {window:,} tokens, but the context is {context:,}"
        raise InputError(f"{wrong}, so it would hide nothing; use fewer, or leave it out")
    derived = {"n_kv_head": n_head, "n_ffn": -(-8 * n_embd // (3 * 64)) * 64, "head_dim": n_embd // n_head}
    return DecoderConfig(**(derived | values | {"context": context}))


def _layer_windows(pattern: list[int], n_layer: int) -> dict[str, Any]:
    """The window of a configuration, and the layers without it. Raises: InputError for too long a pattern."""
    if len(pattern) > n_layer:
        raise InputError(
            f"model.layer_window is for {len(pattern)} layers, but the model has {n_layer}; give as many or "
            "fewer, which repeat"
        )
    full = tuple(layer for layer in range(n_layer) if not pattern[layer % len(pattern)])
    return {"sliding_window": max(pattern) or None, "full_layers": full if any(pattern) else ()}


@dataclass(frozen=True)
class Story:
    """A published model by arithmetic: its parameters, and its linear layers but the head.

    linears  (inputs, outputs, number) of layers by name; those that share a name may have several shapes
    config   values of config.json that its sizes follow from
    """

    total: int
    linears: dict[str, list[tuple[int, int, int]]]
    config: dict[str, Any]

    def count_lora(self, rank: int, targets: str | list[str]) -> int:
        """Parameters of an adapter on the targets, or on all linear layers. Raises: InputError."""
        chosen = list(self.linears) if targets == "all-linear" else list(targets)
        for name in chosen:
            if name not in self.linears:
                known = ", ".join(self.linears)
                raise InputError(f"adapter.targets: no linear layer is called {name!r}; there are {known}")
        return sum(
            rank * (inputs + outputs) * count
            for name in set(chosen)
            for inputs, outputs, count in self.linears[name]
        )


def _decoder(
    width: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, *, positions: int,
    bias: bool = False, tied: bool = True,
) -> Story:  # fmt: skip
    """Qwen2 (with bias) and Llama."""
    config = {
        "model_type": "qwen2" if bias else "llama", "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": ffn,
        "vocab_size": vocab, "tie_word_embeddings": tied, "max_position_embeddings": positions,
        "hidden_act": "silu", "rms_norm_eps": 1e-6,
    }  # fmt: skip
    query, key_value = width, width // heads * kv_heads
    linears = {
        "q_proj": [(width, query, layers)], "k_proj": [(width, key_value, layers)],
        "v_proj": [(width, key_value, layers)], "o_proj": [(query, width, layers)],
        "gate_proj": [(width, ffn, layers)], "up_proj": [(width, ffn, layers)],
        "down_proj": [(ffn, width, layers)],
    }  # fmt: skip
    norms = (2 * layers + 1) * width
    biases = layers * (query + 2 * key_value) * bias
    return Story(vocab * width * (1 if tied else 2) + _weights(linears) + norms + biases, linears, config)


def _gpt_2(width: int, layers: int, vocab: int, positions: int) -> Story:
    linears = {
        "c_attn": [(width, 3 * width, layers)],
        "c_proj": [(width, width, layers), (4 * width, width, layers)],
        "c_fc": [(width, 4 * width, layers)],
    }
    config = {
        "model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": width // 64, "vocab_size": vocab,
        "n_positions": positions, "bos_token_id": vocab - 1, "eos_token_id": vocab - 1,
    }  # fmt: skip
    total = (vocab + positions) * width + _weights(linears) + layers * 13 * width + 2 * width
    return Story(total, linears, config)


def _gpt_j(width: int, layers: int, vocab: int) -> Story:
    linears = {name: [(width, width, layers)] for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    linears |= {"fc_in": [(width, 4 * width, layers)], "fc_out": [(4 * width, width, layers)]}
    config = {
        "model_type": "gptj", "n_embd": width, "n_layer": layers, "n_head": width // 256, "rotary_dim": 64,
        "vocab_size": vocab, "n_positions": 2048, "tie_word_embeddings": False,
    }  # fmt: skip
    total = 2 * vocab * width + vocab + _weights(linears) + layers * 7 * width + 2 * width
    return Story(total, linears, config)


def _roberta(width: int, layers: int, ffn: int, vocab: int, positions: int) -> Story:
    """With the pooler of RobertaModel."""
    linears = {name: [(width, width, layers)] for name in ("query", "key", "value")}
    # It closes the attention, opens and closes the feed-forward, and is the pooler.
    linears["dense"] = [(width, width, layers + 1), (width, ffn, layers), (ffn, width, layers)]
    biases = layers * (5 * width + ffn) + width
    norms = 2 * width * (2 * layers + 1)
    config = {
        "model_type": "roberta", "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "intermediate_size": ffn, "vocab_size": vocab,
        "max_position_embeddings": positions, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2, "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return Story((vocab + positions + 1) * width + _weights(linears) + biases + norms, linears, config)


def _t5(width: int, layers: int, heads: int, ffn: int, vocab: int) -> Story:
    """Encoder and decoder of so many layers each, heads of 64."""
    inner = 64 * heads
    linears = {name: [(width, inner, 3 * layers)] for name in ("q", "k", "v")}
    shapes = {"o": (inner, width, 3 * layers), "wi": (width, ffn, 2 * layers), "wo": (ffn, width, 2 * layers)}
    linears |= {name: [shape] for name, shape in shapes.items()}
    norms = (5 * layers + 2) * width
    config = {
        "model_type": "t5", "d_model": width, "d_kv": 64, "d_ff": ffn, "num_layers": layers,
        "num_heads": heads, "vocab_size": vocab, "decoder_start_token_id": 0, "pad_token_id": 0,
        "eos_token_id": 2,
    }  # fmt: skip
    return Story(vocab * width + _weights(linears) + norms + 2 * 32 * heads, linears, config)


def _weights(linears: dict[str, list[tuple[int, int, int]]]) -> int:
    return sum(inputs * outputs * count for shapes in linears.values() for inputs, outputs, count in shapes)


_QWEN_CODER = {
    "Qwen/Qwen2.5-Coder-0.5B": _decoder(896, 24, 14, 2, 4864, 151_936, positions=32_768, bias=True),
    "Qwen/Qwen2.5-Coder-1.5B": _decoder(1536, 28, 12, 2, 8960, 151_936, positions=32_768, bias=True),
    "Qwen/Qwen2.5-Coder-3B": _decoder(2048, 36, 16, 2, 11_008, 151_936, positions=32_768, bias=True),
    "Qwen/Qwen2.5-Coder-7B": _decoder(
        3584, 28, 28, 4, 18_944, 152_064, positions=32_768, bias=True, tied=False
    ),
}
STORIES: dict[str, Story] = {
    **_QWEN_CODER,
    **{f"{name}-Instruct": story for name, story in _QWEN_CODER.items()},
    "openai-community/gpt2": _gpt_2(768, 12, 50_257, 1024),
    "openai-community/gpt2-medium": _gpt_2(1024, 24, 50_257, 1024),
    "EleutherAI/gpt-j-6b": _gpt_j(4096, 28, 50_400),
    "microsoft/codebert-base": _roberta(768, 12, 3072, 50_265, 514),
    "Salesforce/codet5-small": _t5(512, 6, 8, 2048, 32_100),
    "Salesforce/codet5-base": _t5(768, 12, 12, 3072, 32_100),
    "Salesforce/codet5p-220m": _t5(768, 12, 12, 3072, 32_100),
    "Salesforce/codet5-large": _t5(1024, 24, 16, 4096, 32_100),
    "Salesforce/codet5p-770m": _t5(1024, 24, 16, 4096, 32_100),
    "meta-llama/Llama-3.2-1B": _decoder(2048, 16, 32, 8, 8192, 128_256, positions=131_072),
    "HuggingFaceTB/SmolLM2-135M": _decoder(576, 30, 9, 3, 1536, 49_152, positions=8192),
    "HuggingFaceTB/SmolLM2-360M": _decoder(960, 32, 15, 5, 2560, 49_152, positions=8192),
}

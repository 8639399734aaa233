"""The configuration of a decoder, also in the words of transformers' config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from etude.errors import InputError
from etude.models.hf_config import Keys, Unsupported, flag, number, quoted, size, unfit
from etude.recipe import model as recipe


@dataclass(frozen=True)
class RopeScaling:
    """The change of rotary frequencies for a context longer than the original one.

    linear: all are divided by factor. llama3: slow ones are, quick ones are kept, with a smooth passage
    between `low_freq_factor` and `high_freq_factor` turns of the original context. yarn: the same by a ramp
    between `beta_slow` and `beta_fast` turns; queries and keys grow by `attention_factor`.

    Source: yarn, arXiv:2309.00071; llama3, the model card of Llama 3.1.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a decoder; Qwen3, Qwen2, Mistral and Llama are points of this space.

    sliding_window: tokens a position sees, itself included; full_layers: blocks without it.
    context: longest sequence in tokens. qkv_bias, out_bias: of the attention's projections.

    Raises: InputError if the values do not fit each other.
    """

    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    n_ffn: int
    head_dim: int
    context: int
    tied: bool = True
    qk_norm: bool = False
    qkv_bias: bool = False
    sliding_window: int | None = None
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    zero_init: bool = False
    dropout: float = 0.0
    out_bias: bool = False
    mlp_bias: bool = False
    full_layers: tuple[int, ...] = ()
    rope_scaling: RopeScaling | None = None

    @property
    def longest(self) -> int:
        """Tokens that the model reads at most: files give the original context or the scaled one."""
        scaling = self.rope_scaling
        return max(self.context, int(scaling.factor * scaling.original_context)) if scaling else self.context

    def window(self, layer: int) -> int | None:
        """Tokens that a position of a block sees, itself included; None for all."""
        return None if layer in self.full_layers else self.sliding_window

    def __post_init__(self) -> None:
        if self.n_head % self.n_kv_head:
            wrong = f"model.n_kv_head is {self.n_kv_head}, which does not divide n_head {self.n_head}"
            raise InputError(f"{wrong}; use {self.n_head} or a divisor")
        if self.head_dim % 2:
            wrong = f"model.head_dim is {self.head_dim}; rotary positions need an even number"
            raise InputError(f"{wrong}; try {self.head_dim + 1}")
        if self.qk_norm and self.qkv_bias and not self.out_bias:
            wrong = "model.qkv_bias is true together with qk_norm, which is no published architecture"
            raise InputError(f"{wrong}; set one of them to false")
        if self.full_layers and self.sliding_window and not (self.qk_norm or self.qkv_bias):
            wrong = "model.layer_window leaves some layers without a window"
            raise InputError(f"{wrong}, which only Qwen3 and Qwen2 do; set qk_norm = true")

    def to_hf(self, *, eos_id: int | None) -> dict[str, Any]:
        """The config.json with which AutoModelForCausalLM.from_pretrained loads the weights as they are.

        `zero_init` is about new weights only and is not in it. `rope_theta` stands twice, for transformers 4
        and 5. A pretrained model keeps the config.json it came with, which may say more than this.
        """
        is_given = self.out_bias or self.mlp_bias or self.rope_scaling
        assert not is_given, "a model with these keeps its config.json"
        model_type = self._model_type()
        values: dict[str, Any] = {
            "architectures": [_ARCHITECTURES[model_type]],
            "model_type": model_type,
            **{key: getattr(self, name) for name, key in _SIZES.items()},
            "num_key_value_heads": self.n_kv_head,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tied,
            "attention_dropout": self.dropout,
            "initializer_range": 0.02,
            "use_cache": True,
            "bos_token_id": None,
            "eos_token_id": eos_id,
            "pad_token_id": None,
        }
        if model_type in ("llama", "qwen3"):
            values["attention_bias"] = False
        if model_type == "llama":
            values["mlp_bias"] = False
        else:
            values["sliding_window"] = self.sliding_window
        if model_type in ("qwen2", "qwen3"):
            slid = [self.window(layer) is not None for layer in range(self.n_layer)]
            first = slid.index(True) if any(slid) else self.n_layer
            values["use_sliding_window"] = any(slid)
            # It says the same to older readers, where it can: all layers from one on.
            values["max_window_layers"] = first if all(slid[first:]) else self.n_layer
            values["layer_types"] = ["sliding_attention" if each else "full_attention" for each in slid]
        return values

    @staticmethod
    def from_hf(values: Mapping[str, Any]) -> "DecoderConfig":
        """Read a config.json of Qwen3, Qwen2, Mistral or Llama. Raises: InputError that names a wrong key."""
        model_type = values.get("model_type")
        if not isinstance(model_type, str) or model_type not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise Unsupported(f"config.json: model_type is {quoted(model_type)}; expected one of {known}")
        _KEYS.check(values)
        sizes: dict[str, Any] = {name: size(values, key) for name, key in _SIZES.items()}
        default_head_dim = 128 if model_type == "qwen3" else sizes["n_embd"] // sizes["n_head"]
        # Qwen2 always has these biases and Mistral never, whatever the key says.
        biased = model_type in ("llama", "qwen3") and flag(values, "attention_bias")
        window, full_layers = _windows(values)
        return DecoderConfig(
            **sizes,
            n_kv_head=size(values, "num_key_value_heads", sizes["n_head"] if model_type == "llama" else None),
            head_dim=size(values, "head_dim", default_head_dim),
            context=size(values, "max_position_embeddings"),
            tied=flag(values, "tie_word_embeddings"),
            qk_norm=model_type == "qwen3",
            qkv_bias=model_type == "qwen2" or biased,
            out_bias=biased,
            mlp_bias=model_type == "llama" and flag(values, "mlp_bias"),
            sliding_window=window,
            full_layers=full_layers,
            rope_theta=_rope_theta(values),
            rope_scaling=_rope_scaling(values),
            norm_eps=number(values, "rms_norm_eps", 1e-6),
            dropout=number(values, "attention_dropout", 0.0),
        )

    @staticmethod
    def extend(
        values: Mapping[str, Any], scaling: recipe.RopeScaling
    ) -> tuple["DecoderConfig", dict[str, Any]]:
        """The configuration of a config.json with a longer context, and the values of the file then.

        Raises: InputError if it is scaled already in another way, or never read that many tokens.
        """
        before, original = DecoderConfig.from_hf(values), scaling.original_context
        rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            rope["original_max_position_embeddings"] = original
        if scaling.kind == "llama3":
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        # By their files, linear counts from this number on; the others have their original beside it.
        context = original if scaling.kind == "linear" else int(scaling.factor * original)
        theta = {"rope_theta": before.rope_theta}
        extended = {
            **values, **theta, "rope_scaling": rope, "rope_parameters": rope | theta,
            "max_position_embeddings": context,
        }  # fmt: skip
        after, known = DecoderConfig.from_hf(extended), before.rope_scaling
        if known not in (None, after.rope_scaling):
            wrong = f"config.json scales already ({known.kind} by {known.factor:g})"
            raise InputError(f"model.rope_scaling is given, but {wrong}; leave it out, or use another model")
        if known is None and original > before.context:
            wrong = f"is {original:,}, but config.json says that the model reads {before.context:,} tokens"
            raise InputError(f"model.rope_scaling.original_context {wrong}; use that, or less")
        return after, extended

    def _model_type(self) -> str:
        if self.qk_norm or self.qkv_bias:
            return "qwen3" if self.qk_norm else "qwen2"
        # Mistral without a window is Llama, but does not insist that the heads share n_embd evenly.
        return "mistral" if self.sliding_window is not None or self.n_embd % self.n_head else "llama"


_ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "mistral": "MistralForCausalLM",
    "llama": "LlamaForCausalLM",
}  # fmt: skip
# Sizes without a default, by their names here and in config.json.
_SIZES = {
    "vocab_size": "vocab_size", "n_embd": "hidden_size", "n_ffn": "intermediate_size",
    "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
}  # fmt: skip
_KEYS = Keys(
    "decoder",
    read=frozenset({
        "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
        "rope_theta", "rope_parameters", "rope_scaling", "tie_word_embeddings", "attention_dropout",
        "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "attention_bias",
        "mlp_bias", "max_length",
    }),
    only={
        "hidden_act": "silu", "is_encoder_decoder": False, "chunk_size_feed_forward": 0, "pretraining_tp": 1,
        "partial_rotary_factor": 1.0, "rope_interleaved": False, "use_mrope": False,
        "add_cross_attention": False, "pruned_heads": {},
    },
    harmless=frozenset({
        "pad_token_id", "is_llama_config", "is_decoder", "tie_encoder_decoder", "max_sequence_length",
        "unsloth_version", "unsloth_fixed",
    }),
)  # fmt: skip


def _rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of rotary positions, from the old place or the new one."""
    rope: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        part = {} if values.get(name) is None else values[name]
        if not isinstance(part, dict):
            raise unfit(name, part, "an object")
        rope |= part
    kind = rope.get("rope_type", rope.get("type")) or "default"
    known = _ROPE_KEYS.get(kind) if isinstance(kind, str) else None
    if known is None or set(rope) - known - {"rope_theta", "rope_type", "type"}:
        error = Unsupported if isinstance(kind, str) else InputError
        kinds = ", ".join(_ROPE_KEYS)
        raise error(f"config.json: rotary positions are {quoted(rope)}; this decoder knows {kinds}")
    return rope | {"kind": kind}


_ROPE_KEYS = {
    "default": {"partial_rotary_factor"},
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate",
    },
}  # fmt: skip
_ROPE_NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}


def _rope_theta(values: Mapping[str, Any]) -> float:
    rope = _rope(values)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        wrong = "rotary positions turn only a part of each head"
        raise Unsupported(f"config.json: {wrong}; this decoder turns all of it")
    theta = number({"rope_theta": rope.get("rope_theta", values.get("rope_theta"))}, "rope_theta", 10_000.0)
    if theta <= 1:
        raise unfit("rope_theta", theta, "a number above 1")
    return theta


def _rope_scaling(values: Mapping[str, Any]) -> RopeScaling | None:
    rope = _rope(values)
    kind = rope["kind"]
    if kind == "default":
        return None
    context = size(values, "max_position_embeddings")
    original = size(rope, "original_max_position_embeddings", context)
    if kind == "yarn" and "factor" in rope:  # null is a value here: transformers fills it in so
        rope = rope | {"factor": context / original if rope["factor"] is None else rope["factor"]}
    for name in _ROPE_NEEDS[kind]:
        if rope.get(name) is None:
            wrong = f"{name} of {kind} rotary positions is missing"
            raise InputError(f"config.json: {wrong}; copy the model again")
    factor = number(rope, "factor", 1.0)
    if factor < 1:
        wrong = f"the factor of rotary positions is {factor:g}; expected at least 1"
        raise InputError(f"config.json: {wrong}; mend the file")
    if kind == "llama3":
        low, high = number(rope, "low_freq_factor", 1.0), number(rope, "high_freq_factor", 4.0)
        if high <= low:
            wrong = f"high_freq_factor is {high:g}; expected more than low_freq_factor, {low:g}"
            raise InputError(f"config.json: {wrong}")
        return RopeScaling("llama3", factor, original, low_freq_factor=low, high_freq_factor=high)
    if kind == "linear":
        return RopeScaling("linear", factor, original)

    def grown(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0

    one, other = number(rope, "mscale", 0.0), number(rope, "mscale_all_dim", 0.0)
    attention = number(rope, "attention_factor", grown(one) / grown(other) if one and other else grown(1.0))
    return RopeScaling(
        "yarn", factor, original, attention_factor=attention,
        truncate=flag({"truncate": True} | rope, "truncate"),
        beta_fast=number(rope, "beta_fast", 32.0) or 32.0, beta_slow=number(rope, "beta_slow", 1.0) or 1.0,
    )  # fmt: skip


def _windows(values: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, and the blocks without it; transformers' Llama has none, whatever the keys say."""
    if values["model_type"] == "llama":
        return None, ()
    if values["model_type"] == "mistral":
        if "sliding_window" not in values:
            wrong = "sliding_window is missing; expected a number of tokens, or null"
            raise Unsupported(f"config.json: {wrong}; add it")
        return None if values["sliding_window"] is None else size(values, "sliding_window"), ()
    n_layer = size(values, "num_hidden_layers")
    is_used = flag(values, "use_sliding_window") and values.get("sliding_window") is not None
    first = int(number(values, "max_window_layers", 28)) if is_used else n_layer
    kinds = values.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(n_layer)]
    known = ("sliding_attention", "full_attention")
    is_list = isinstance(kinds, list) and len(kinds) == n_layer and all(isinstance(k, str) for k in kinds)
    if not is_list or any(kind not in known for kind in kinds):
        expected = f"full_attention or sliding_attention for each of {n_layer} blocks"
        wrong = f"layer_types is {quoted(kinds)}; expected {expected}; use another model"
        raise (Unsupported if is_list else InputError)(f"config.json: {wrong}")
    full = tuple(layer for layer, kind in enumerate(kinds) if kind == "full_attention")
    if len(full) == n_layer or not is_used:
        return None, ()
    return size(values, "sliding_window"), full

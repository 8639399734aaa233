"""A config.json that says one thing in two places, and not the same."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import InputError


def refuse_conflicts(values: Mapping[str, Any]) -> None:
    """Raises: InputError if a config.json says one thing in two places and not the same; null is no value.

    Readers differ in which of the two they take, so one of them would compute another model.
    """
    said = {name: _plain(value) for name, value in values.items()}
    for group in _ONE_FACT:
        _agree([(name, said.get(name)) for name in group])
    text = values.get("text_config")
    if isinstance(text, Mapping):
        for name in _OF_THE_TEXT:
            _agree([(name, said.get(name)), (f"text_config.{name}", _plain(text.get(name)))])
    _refuse_rotary_conflicts(values)
    _refuse_window_conflicts(values)
    family, classes = CLASS_STEMS.get(str(values.get("model_type"))), values.get("architectures")
    for name in classes if isinstance(classes, list) else []:
        stem = _CLASS.match(str(name))
        if family and stem and stem[1] != family and stem[1] in CLASS_STEMS.values():
            raise InputError(
                f"config.json says model_type = {values['model_type']!r} and architectures = "
                f"{str(name)[:60]!r}, which is another family; mend one of them"
            )


def _refuse_rotary_conflicts(values: Mapping[str, Any]) -> None:
    parts = {name: values.get(name) or {} for name in ("rope_parameters", "rope_scaling")}
    if not all(isinstance(part, Mapping) for part in parts.values()):
        return  # who reads it says so
    if any(isinstance(each, Mapping) for part in parts.values() for each in part.values()):
        return  # one for each kind of layer
    for name, part in parts.items():
        _agree([(f"{name}.rope_type", part.get("rope_type")), (f"{name}.type", part.get("type"))])
    for fact, outside in _ROTARY.items():
        inside = [(f"{name}.{fact}", part.get(fact)) for name, part in parts.items()]
        _agree([*((name, values.get(name)) for name in outside), *inside])
    if all(parts.values()):  # transformers 5 takes the second as a whole
        new, old = ({**part, "rope_type": part.get("rope_type", part.get("type"))} for part in parts.values())
        for fact in sorted({*new, *old} - {"type", "rope_theta", "partial_rotary_factor"}):
            if new.get(fact) != old.get(fact):
                raise InputError(
                    f"config.json says rope_parameters.{fact[:40]} = {_short(new.get(fact))} and "
                    f"rope_scaling.{fact[:40]} = {_short(old.get(fact))}; keep one of the two objects"
                )


def _refuse_window_conflicts(values: Mapping[str, Any]) -> None:
    kinds, pattern, first = (
        values.get(name) for name in ("layer_types", "sliding_window_pattern", "max_window_layers")
    )
    if not isinstance(kinds, list):
        return
    is_slid = [kind == "sliding_attention" for kind in kinds]
    meant = None
    if type(pattern) is int and pattern > 0:
        name, meant = "sliding_window_pattern", [bool((layer + 1) % pattern) for layer in range(len(kinds))]
    elif type(first) is int and first < len(kinds) and values.get("use_sliding_window"):
        name, meant = "max_window_layers", [layer >= first for layer in range(len(kinds))]
    if meant is not None and meant != is_slid:
        raise InputError(
            f"config.json: layer_types and {name} name other layers with a sliding window; keep one of them"
        )


def _agree(said: Sequence[tuple[str, Any]]) -> None:
    """Raises: InputError if the values of these keys, but null, are not all the same."""
    given = [(name, value) for name, value in said if value is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            raise InputError(
                f"config.json says {given[0][0]} = {_short(given[0][1])} and {name} = {_short(value)}, which "
                "are one thing; keep one of them"
            )


def _plain(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


# Names of one thing: of a file of one family, or of one that another tool has added to.
_ONE_FACT = (
    ("hidden_size", "d_model", "n_embd"),
    ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    ("num_attention_heads", "num_heads", "n_heads", "n_head"),
    ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    ("intermediate_size", "n_inner", "d_ff", "ffn_dim"),
    ("max_position_embeddings", "n_positions"),
    ("vocab_size", "n_vocab"),
    ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    ("attention_bias", "qkv_bias", "use_qkv_bias"),
    ("torch_dtype", "dtype"),
)
_OF_THE_TEXT = (
    "tie_word_embeddings",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_ROTARY = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    "original_max_position_embeddings": ("original_max_position_embeddings",),
}
# model_type of config.json, and the beginning of the names of its classes in transformers.
CLASS_STEMS = {
    "qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama", "mistral": "Mistral", "bert": "Bert",
    "roberta": "Roberta", "t5": "T5", "gpt2": "GPT2", "gpt_neox": "GPTNeoX", "gptj": "GPTJ", "gemma": "Gemma",
    "gemma2": "Gemma2", "phi": "Phi", "phi3": "Phi3", "mixtral": "Mixtral", "starcoder2": "Starcoder2",
    "modernbert": "ModernBert", "distilbert": "DistilBert", "opt": "OPT", "bloom": "Bloom",
    "falcon": "Falcon", "mt5": "MT5", "bart": "Bart",
}  # fmt: skip
_CLASS = re.compile(r"([A-Z]\w*?)(?:For[A-Z]|Model|LMHead|DoubleHeads|WithLMHead|Encoder|PreTrained)")

"""Checks of a whole config.json before any library sees it: each fact once, each number within bounds."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.models.hf_config import LARGEST_SIZE, MOST_LABELS, quoted, unfit

_LARGEST_NUMBER = 2**31  # beyond any id, seed or length
MOST_REPEATED = 4096  # layers, experts and the like, of which the largest known model has a tenth
_BLOCKS = re.compile(r"(num_(hidden_|decoder_|encoder_)?|n_|encoder_|decoder_)layers?")
_CORE = re.compile(
    _BLOCKS.pattern
    + r"|num_(attention_|key_value_)?heads|n_heads?|(hidden|vocab|intermediate)_size|d_model|n_embd|head_dim"
    r"|max_position_embeddings|n_positions"
)
_SIZE = re.compile(
    r"(size|layers?|heads?|dim|positions?|embeddings|experts|embd|inner|d_model|d_ff|d_kv|rank)$"
)
_SHARE = re.compile(r"(drop|eps$|epsilon$)")  # of numbers that are left out, or added to a variance
_REPEATED = re.compile(
    r"(layers?|experts|blocks?|depths?|stages?|codebooks|quantizers|types|pattern|repeats?)$"
)


def refuse_conflicts(values: Mapping[str, Any]) -> None:
    """Raises: InputError if a config.json says one thing in two places and not the same; null is no value.

    Readers differ in which of the two they take, so one of them would compute another model.
    """
    plain = {name: _plain(value) for name, value in values.items()}
    for group in _ONE_FACT:
        _agree([(name, plain.get(name)) for name in group])
    text = values.get("text_config")
    if isinstance(text, Mapping):
        for name in _OF_THE_TEXT:
            _agree([(name, plain.get(name)), (f"text_config.{name}", _plain(text.get(name)))])
    _refuse_rotary_conflicts(values)
    _refuse_window_conflicts(values)
    family, classes = CLASS_STEMS.get(str(values.get("model_type"))), values.get("architectures")
    for name in classes if isinstance(classes, list) else []:
        stem = _CLASS.match(str(name))
        if family and stem and stem[1] != family and stem[1] in CLASS_STEMS.values():
            both = f"model_type = {values['model_type']!r} and architectures = {str(name)[:60]!r}"
            raise InputError(f"config.json says {both}, which is another family; mend one of them")


def check_sizes(path: Path, values: Mapping[str, Any], tensors: int | None) -> None:
    """Refuse numbers that no model has; tensors: number in its files, if it has any. Raises: InputError."""
    file = f"{path}/config.json"
    for name, value, is_own in _leaves(file, values):
        is_share = is_own and _SHARE.search(name) and type(value) in (int, float)
        if value != value or (is_share and not 0 <= value < 1):
            raise unfit(name[:40], value, f"a number{' from 0 to below 1' if is_share else ''}", file)
        if type(value) is not int:
            continue
        if tensors is not None and is_own and _BLOCKS.fullmatch(name) and value > tensors:
            wrong = f"{name} is {quoted(value)}, but the files hold {tensors:,} tensors"
            raise InputError(f"{file}: {wrong}; copy the model again")
        least, most = -_LARGEST_NUMBER, _LARGEST_NUMBER
        if _REPEATED.search(name):
            most = max(tensors or 0, MOST_REPEATED)
        elif name.endswith("num_labels"):
            most = MOST_LABELS
        elif _SIZE.search(name):
            most = LARGEST_SIZE
        if is_own and _SIZE.search(name):
            least = 1 if _CORE.fullmatch(name) else -1
        elif is_own and name == "sliding_window" and values.get("use_sliding_window") is not False:
            least = 1  # some tools take 0 for none, and transformers hides all
        if not least <= value <= most:
            raise unfit(name[:40], value, f"{least:,} to {most:,}", file)


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
                name, first, second = fact[:40], quoted(new.get(fact), 40), quoted(old.get(fact), 40)
                both = f"rope_parameters.{name} = {first} and rope_scaling.{name} = {second}"
                raise InputError(f"config.json says {both}; keep one of the two objects")


def _refuse_window_conflicts(values: Mapping[str, Any]) -> None:
    names = ("layer_types", "sliding_window_pattern", "max_window_layers")
    kinds, pattern, first = map(values.get, names)
    if not isinstance(kinds, list):
        return
    is_slid = [kind == "sliding_attention" for kind in kinds]
    meant = None
    if type(pattern) is int and pattern > 0:
        name, meant = "sliding_window_pattern", [bool((layer + 1) % pattern) for layer in range(len(kinds))]
    elif type(first) is int and first < len(kinds) and values.get("use_sliding_window"):
        name, meant = "max_window_layers", [layer >= first for layer in range(len(kinds))]
    if meant is not None and meant != is_slid:
        wrong = f"layer_types and {name} name other layers with a sliding window"
        raise InputError(f"config.json: {wrong}; keep one of them")


def _agree(pairs: Sequence[tuple[str, Any]]) -> None:
    """Raises: InputError if the values of these keys, but null, are not all the same."""
    given = [(name, value) for name, value in pairs if value is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            both = f"{given[0][0]} = {quoted(given[0][1], 40)} and {name} = {quoted(value, 40)}"
            raise InputError(f"config.json says {both}, which are one thing; keep one of them")


def _plain(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _leaves(file: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Each plain value at any depth, its key, and true if that is one of the text model itself.

    Raises: InputError for a list or object that is too long.
    """
    left: list[tuple[str, Any, int]] = [("", values, 0)]
    while left:
        name, value, depth = left.pop()
        if isinstance(value, dict | list) and len(value) > MOST_LABELS:
            wrong = f"{name[:40]} has {len(value):,} entries; expected at most {MOST_LABELS:,}"
            raise InputError(f"{file}: {wrong}; mend the file")
        if isinstance(value, dict):
            inner = depth if name == "text_config" and depth == 1 else depth + 1
            left += [(key, item, inner) for key, item in value.items()]
        elif isinstance(value, list):
            left += [(name, item, 2) for item in value]
        else:
            yield name, value, depth == 1


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
    "tie_word_embeddings", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"
)  # fmt: skip
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

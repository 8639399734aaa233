"""Bound every number of a config.json before any library sees it: some are how often a list is repeated."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.models.hf_config import LARGEST_SIZE, MOST_LABELS, quoted

_LARGEST_NUMBER = 2**31  # beyond any id, seed or length
_MOST_REPEATED = 4096  # layers, experts and the like, of which the largest known model has a tenth
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


def check_sizes(path: Path, values: Mapping[str, Any], tensors: int) -> None:
    """Raises: InputError for numbers that no model has; tensors: how many its files hold, and so layers at
    most.
    """
    file = f"{path}/config.json"
    for name, value, is_own in _leaves(file, values):
        is_share = is_own and _SHARE.search(name) and type(value) in (int, float)
        if value != value or (is_share and not 0 <= value < 1):
            expected = "a number from 0 to below 1" if is_share else "a number"
            raise InputError(
                f"{file}: {name[:40]} is {quoted(value)}; expected {expected}; mend or replace the file"
            )
        if type(value) is not int:
            continue
        if is_own and _BLOCKS.fullmatch(name) and value > tensors:
            raise InputError(
                f"{file}: {name} is {quoted(value)}, but the files hold {tensors:,} tensors; copy the model "
                "again"
            )
        least, most = -_LARGEST_NUMBER, _LARGEST_NUMBER
        if _REPEATED.search(name):
            most = max(tensors, _MOST_REPEATED)
        elif name.endswith("num_labels"):
            most = MOST_LABELS
        elif _SIZE.search(name):
            most = LARGEST_SIZE
        if is_own and _SIZE.search(name):
            least = 1 if _CORE.fullmatch(name) else -1
        elif is_own and name == "sliding_window" and values.get("use_sliding_window") is not False:
            least = 1  # some tools take 0 for none, and transformers hides all
        if not least <= value <= most:
            raise InputError(
                f"{file}: {name[:40]} is {quoted(value)}; expected {least:,} to {most:,}; mend or replace "
                "the file"
            )


def _leaves(file: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Each plain value at any depth, with the key it stands under, and whether that is one of the text model
    itself.

    Raises: InputError for a list or object that is too long.
    """
    left: list[tuple[str, Any, int]] = [("", values, 0)]
    while left:
        name, value, depth = left.pop()
        if isinstance(value, dict | list) and len(value) > MOST_LABELS:
            raise InputError(
                f"{file}: {name[:40]} has {len(value):,} entries; expected at most {MOST_LABELS:,}; mend the "
                "file"
            )
        if isinstance(value, dict):
            inner = depth if name == "text_config" and depth == 1 else depth + 1
            left += [(key, item, inner) for key, item in value.items()]
        elif isinstance(value, list):
            left += [(name, item, 2) for item in value]
        else:
            yield name, value, depth == 1

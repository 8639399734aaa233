"""generation_config.json: the ids that end an answer, and settings for text in transformers."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError

GENERATION_FILE = "generation_config.json"
_ROLES = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
_OF_A_FILE = ("_from_model_config", "transformers_version")  # true of the file read, not of the one written


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The values of a folder's generation_config.json, none if it has no such file. Raises: InputError."""
    try:
        return durable.read_json_object(folder / GENERATION_FILE)
    except MissingError:
        return {}


def read_stop_ids(folder: Path) -> tuple[int, ...]:
    """The ids at which transformers stops a model, of generation_config.json or else of config.json.

    Raises: InputError if a file cannot be read, or its eos_token_id holds no ids.
    """
    for name in (GENERATION_FILE, "config.json"):
        try:
            given = durable.read_json_object(folder / name).get("eos_token_id")
        except MissingError:
            continue
        ids = given if isinstance(given, list) else [] if given is None else [given]
        if not all(type(token) is int and token >= 0 for token in ids):
            wrong = f"eos_token_id is {str(given)[:60]!r}; expected an id or a list of ids"
            raise InputError(f"{folder / name}: {wrong}")
        if ids:
            return tuple(dict.fromkeys(ids))
    return ()


def generation_config(base: Mapping[str, Any], config: Mapping[str, Any], end_ids: Iterable[int]) -> bytes:
    """The content of a generation_config.json with these ends.

    base: what the generation_config.json of the base says, which stays. config: the values of config.json.
    """
    kept = {name: value for name, value in base.items() if name not in _OF_A_FILE}
    known = {name: value for name, value in config.items() if value is not None}
    if known.get("model_type") == "t5":
        known.setdefault("decoder_start_token_id", known.get("pad_token_id", 0))
    roles = {name: known[name] for name in _ROLES if name in known and kept.get(name) is None}
    return json.dumps({**kept, **roles, "eos_token_id": list(end_ids)}, indent=2).encode()

"""The tokenizer that a recipe names: its files, read, vetted and made to say one thing."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.data.token_settings import (
    apply_added_tokens,
    check_truncation,
    read_settings,
    refuse_conflicts,
    token_text,
)
from etude.data.tokenize import Tokenizer
from etude.data.vet import convert, vet
from etude.errors import InputError
from etude.recipe import model as recipe_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Inner

# Other tools take a folder with these for a tokenizer.
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "added_tokens.json", "tokenizer.model",
)  # fmt: skip
_KNOWN_EOS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
_LARGEST_BYTES = 64 << 20  # of a tokenizer.json; the largest known has 35 MB


def load_tokenizer(section: recipe_model.Tokenizer) -> Tokenizer:
    """The tokenizer of a recipe: a tokenizer.json, or a folder with one, or with vocab.json and merges.txt.

    Raises: InputError if it cannot be loaded, or if no token is known to end a document.
    """
    path = _path(section)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not os.path.lexists(file):
        text, file = _convert_folder(path), path
    else:
        text = _read_text(file)
    inner = _parse(text, file)
    given = _read_given(path)
    settings = read_settings(given, path)
    check_truncation(inner.truncation, settings)
    inner.no_truncation()
    inner.no_padding()
    refuse_conflicts(json.loads(inner.to_str()), settings)
    eos = _find_eos(inner, section.eos_token, _folder(path))
    apply_added_tokens(inner, settings, eos)
    if section.eos_token is not None and "tokenizer_config.json" in given:
        changed = json.loads(given["tokenizer_config.json"]) | {"eos_token": eos}
        given["tokenizer_config.json"] = json.dumps(changed, indent=2, ensure_ascii=False).encode()
    return Tokenizer(inner.to_str(), eos, given)


def tokenizer_key(section: recipe_model.Tokenizer) -> list[Any]:
    """The end token of a tokenizer, and names and hashes of its files. Raises: InputError if it is absent."""
    path = _path(section)
    files = [*([] if path.is_dir() else [path]), *_existing(_folder(path), FILES)]
    hashes = [[file.name, hashlib.sha256(_read(file)).hexdigest()] for file in files]
    return [section.eos_token, hashes]


def tells_date(section: recipe_model.Tokenizer) -> bool:
    """True if the chat template of a tokenizer may write the day."""
    files = _existing(_folder(_path(section)), FILES[1:])
    return any(b"strftime_now" in _read(file) for file in files if file.is_file())


def _path(section: recipe_model.Tokenizer) -> Path:
    assert section.from_ is not None, "rules.py asks for one of from and train_vocab_size"
    return Path(section.from_)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _existing(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if os.path.lexists(folder / name)]


def _parse(text: str, file: Path) -> "Inner":
    from tokenizers import Tokenizer as Inner

    vet(text, str(file))
    try:
        return Inner.from_str(text)
    except Exception as error:  # tokenizers raises nothing more precise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"tokenizer {file} is no tokenizer.json ({reason}); give one, or a folder with one"
        ) from None


def _convert_folder(folder: Path) -> str:
    """The content of a tokenizer.json for a folder with vocab.json and merges.txt."""
    if len(_existing(folder, ("vocab.json", "merges.txt"))) < 2:
        raise InputError(f"tokenizer {folder} has no tokenizer.json; give a folder with one, or the file")
    return convert(folder, sum(len(_read(file)) for file in _existing(folder, FILES)))


def _find_eos(inner: "Inner", asked: str | None, folder: Path) -> str:
    if asked is not None:
        if inner.token_to_id(asked) is None:
            raise InputError(f"tokenizer.eos_token {asked!r} is no token of the tokenizer; name one it has")
        return asked
    given = {file.name: _read(file) for file in _existing(folder, FILES[1:3])}
    named = token_text(read_settings(given, folder).get("eos_token"))
    if named and inner.token_to_id(named) is None:
        raise InputError(
            f"the tokenizer in {folder} says eos_token = {named[:40]!r}, which is none of its tokens; set "
            "tokenizer.eos_token to one that it has"
        )
    for token in [named, *_KNOWN_EOS]:
        if token is not None and inner.token_to_id(token) is not None:
            return token
    raise InputError(
        f"the tokenizer in {folder} does not say which token ends a document; set tokenizer.eos_token to one "
        "it has"
    )


def _read_given(path: Path) -> dict[str, bytes]:
    """The files of a folder that other tools take for a tokenizer; none if it has no settings."""
    folder = path.parent if path.name == "tokenizer.json" else path
    if not os.path.lexists(folder / "tokenizer_config.json"):
        return {}
    given = {file.name: _read(file) for file in _existing(folder, FILES)}
    if "chat_template.jinja" in given:
        _read_text(folder / "chat_template.jinja")
    return given


def _read_text(file: Path) -> str:
    content = _read(file)
    if why := durable.why_not_utf8(content):
        raise InputError(f"tokenizer {file} is not UTF-8 text: {why}; save it as UTF-8")
    return content.decode("utf-8-sig")


def _read(file: Path) -> bytes:
    try:
        return durable.read_bytes(file, most_bytes=_LARGEST_BYTES)
    except InputError as error:
        raise InputError(f"tokenizer {error}; give a tokenizer.json or a folder with one") from None

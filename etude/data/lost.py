"""Text that a tokenizer leaves out, as it has neither tokens for its characters nor one for the unknown."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Inner

# The signs by which byte-level tokenizers write the 256 bytes.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_SIGNS = {chr(byte): byte for byte in _VISIBLE} | {
    chr(256 + place): byte for place, byte in enumerate(byte for byte in range(256) if byte not in _VISIBLE)
}
# A byte in a token of byte fallback.
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


def can_lose(content: Mapping[str, Any]) -> bool:
    """True if a tokenizer may leave out text, as only a BPE without unknown token and all bytes does."""
    model = content["model"]
    if "merges" not in model or model.get("unk_token") is not None:
        return False
    vocabulary = model["vocab"]
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return False
    prefix = model.get("continuing_subword_prefix") or ""
    is_whole = all(sign in vocabulary and prefix + sign in vocabulary for sign in BYTE_SIGNS)
    return not (is_whole and _is_byte_level(content))


def count_lost(inner: "Inner", content: Mapping[str, Any], text: str) -> int:
    """Count the bytes of a text that no token stands for, but for those that the rules before it take out."""
    model, is_byte_level = content["model"], _is_byte_level(content)
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""

    def size(token: str) -> int:
        return len(token) if is_byte_level else len(token.encode())

    def kept(token: str) -> int:
        if model.get("byte_fallback") and _BYTE_TOKEN.fullmatch(token):
            return 1
        return size(token.removesuffix(suffix).removeprefix(prefix))

    added = (token["content"] for token in content["added_tokens"] if not token["special"])
    plain = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or "(?!)")
    pieces: Counter[str] = Counter()
    for part in filter(None, plain.split(text)):
        normal = part if inner.normalizer is None else inner.normalizer.normalize_str(part)
        split = inner.pre_tokenizer and inner.pre_tokenizer.pre_tokenize_str(normal)
        pieces.update([normal] if split is None else (piece for piece, _ in split))
    return sum(
        count * max(size(piece) - sum(kept(token.value) for token in inner.model.tokenize(piece)), 0)
        for piece, count in pieces.items()
        if piece
    )


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([content.get("normalizer"), content.get("pre_tokenizer")])

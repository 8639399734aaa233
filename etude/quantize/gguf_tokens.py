"""A byte-level BPE as GGUF stores it, and the name of the way in which llama.cpp splits text before it.

llama.cpp knows fixed ways to split by their names, where a tokenizer.json has a pattern. The pattern says
which name it is; for any other one, the name is chosen under which fewest texts get other ids.

Source: github.com/ggml-org/llama.cpp, src/llama-vocab.cpp.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.data.tokenize import Tokenizer
from etude.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Inner

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = "digits"
# What text is split by, one after another, and the name of that.
_SPLITS: dict[tuple[str, ...], str] = {
    (_WORDS % "{1,3}",): "llama-bpe",
    (_WORDS % "",): "qwen2",
    (_GPT2,): "gpt-2",
    (_DIGITS, _GPT2): "starcoder",
}


@dataclass(frozen=True)
class Splits:
    """The name under which llama.cpp splits text, and a tokenizer that does so; `same`: as its own does."""

    name: str
    inner: "Inner"
    same: bool


def find_splits(tokenizer: Tokenizer, texts: Sequence[str]) -> Splits:
    """The name of the way in which a tokenizer splits text, or that under which fewest texts change.

    Raises: InputError if the tokenizer is no byte-level BPE.
    """
    from tokenizers import Tokenizer as Inner

    content = json.loads(tokenizer.to_json())
    own = _require_byte_level(content)
    if own in _SPLITS:
        return Splits(_SPLITS[own], Inner.from_str(tokenizer.to_json()), same=True)
    others = [Splits(name, _split_by(content, parts), same=False) for parts, name in _SPLITS.items()]
    ids = [each.tolist() for each in tokenizer.encode_batch(list(texts))]
    return min(others, key=lambda each: sum(a != b for a, b in zip(ids, encode(each.inner, texts))))


def encode(inner: "Inner", texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts, in which special tokens are text."""
    inner.encode_special_tokens = True
    return [each.ids for each in inner.encode_batch_fast(list(texts), add_special_tokens=False)]


def add_tokens(writer: Any, tokenizer: Tokenizer, splits: str, size: int, ends: Sequence[int]) -> None:
    """Add tokens, merges, special ids and chat template to a GGUFWriter.

    size: rows of the embedding; ids without a token are marked unused. ends: ids that end a text, the
    tokenizer's own first; llama.cpp keeps three of them.

    Raises: InputError if an id has no row, or merges cannot be written.
    """
    content = json.loads(tokenizer.to_json())
    tokens, kinds = _tokens(content, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(_merges(content["model"]))
    writer.add_eos_token_id(ends[0])
    for add, number in zip((writer.add_eot_token_id, writer.add_eom_token_id), ends[1:]):
        add(number)
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(tokenizer.bos_id is not None)
    writer.add_add_eos_token(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _require_byte_level(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps that split text. Raises: InputError if llama.cpp would read text otherwise."""
    model, parts = content["model"], _flat(content.get("pre_tokenizer"), "pretokenizers")
    is_level = bool(parts) and parts[-1].get("type") == "ByteLevel" and not parts[-1].get("add_prefix_space")
    if "merges" not in model or model.get("byte_fallback") or not is_level:
        kind = str(model.get("type", "other"))[:20]
        wrong = f"the tokenizer is a {kind} that is not byte-level"
        raise InputError(f"{wrong}, and etude writes GGUF with byte-level BPE only; use --to hf or merged")
    others = [part for part in _flat(content.get("normalizer"), "normalizers") if part.get("type") != "NFC"]
    if others:
        wrong = f"the tokenizer changes text by {str(others[0].get('type'))[:20]}"
        raise InputError(f"{wrong}, which llama.cpp does not; use --to hf or merged")
    return tuple(_split_of(part) for part in parts if _split_of(part))


def _flat(part: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(part, dict):
        return []
    return list(part[name]) if part.get("type") == "Sequence" else [part]


def _split_of(part: Mapping[str, Any]) -> str:
    """The pattern of a step before the BPE; nothing for one that does not split."""
    if part.get("type") == "ByteLevel":
        return _GPT2 if part.get("use_regex", True) else ""
    if part.get("type") == "Digits" and part.get("individual_digits"):
        return _DIGITS
    pattern = part.get("pattern") or {}
    is_plain = part.get("behavior") == "Isolated" and not part.get("invert")
    if part.get("type") == "Split" and is_plain and "Regex" in pattern:
        return str(pattern["Regex"])
    return f"a step that is not known: {part.get('type')}"


def _split_by(content: Mapping[str, Any], parts: Sequence[str]) -> "Inner":
    """The tokenizer of a tokenizer.json with other splits."""
    from tokenizers import Regex, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    inner = Inner.from_str(json.dumps(content))
    steps = [
        pre_tokenizers.Digits(True) if part == _DIGITS else pre_tokenizers.Split(Regex(part), "isolated")
        for part in parts
    ]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*steps, level])
    return inner


def _tokens(content: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    tokens, kinds = [f"[PAD{number}]" for number in range(size)], [_UNUSED] * size
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    known = {number: text for text, number in content["model"]["vocab"].items()}
    for number, text in {**known, **{number: token["content"] for number, token in added.items()}}.items():
        if not 0 <= number < size:
            raise InputError(f"the token {text[:40]!r} has id {number:,}, and the model {size:,} embeddings")
        tokens[number], kinds[number] = text, _NORMAL
        if number in added:
            kinds[number] = _CONTROL if added[number].get("special") else _USER_DEFINED
    return tokens, kinds


def _merges(model: Mapping[str, Any]) -> list[str]:
    pairs = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    if wrong := next((pair for pair in pairs if len(pair) != 2 or any(" " in part for part in pair)), None):
        raise InputError(f"the merge {str(wrong)[:60]} of the tokenizer cannot be written; use --to hf")
    return [" ".join(pair) for pair in pairs]

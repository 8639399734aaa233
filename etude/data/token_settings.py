"""The settings of a tokenizer_config.json that transformers puts over a tokenizer.json."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude import durable
from etude.errors import InputError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Inner

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# These classes take a tokenizer.json as it is; the others build normalizer and pre-tokenizer anew.
_TAKE_THE_FILE = ("PreTrainedTokenizer", "TokenizersBackend", "BloomTokenizer")
_BOOLEANS = (
    "split_special_tokens", "add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case",
    "strip_accents", "tokenize_chinese_chars", "legacy",
)  # fmt: skip
_LONGEST_TEMPLATE = 1 << 20  # the longest known has some 50,000 characters
_LLAMA = ("LlamaTokenizer", "CodeLlamaTokenizer")
_NO_PREFIX_SETTING = ("T5Tokenizer", "MT5Tokenizer", "GemmaTokenizer")
_LOWER_CASE = re.compile(
    "(Bert|DistilBert|Electra|MobileBert|MPNet|Funnel|Lxmert|RoFormer|ConvBert)Tokenizer"
)


def read_settings(given: Mapping[str, bytes], folder: Path = Path()) -> dict[str, Any]:
    """The settings of tokenizer_config.json, and of special_tokens_map.json where they are absent.

    folder: of the files, for errors. Raises: InputError for a file or a setting that is malformed.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            text = given.get(name, b"{}").decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{folder / name} is not UTF-8 text; save it as UTF-8") from None
        read = durable.parse_json(text, folder / name)
        if not isinstance(read, dict):
            raise InputError(f"{folder / name} holds no JSON object; repair or remove it")
        _check_settings(read, str(folder / name))
        settings |= {key: value for key, value in read.items() if value is not None}
    return settings


def refuse_conflicts(content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings of which tokenizer.json and tokenizer_config.json have different values.

    Versions of transformers take one or the other, so one of them would read other ids. A setting that is
    absent, null, or not applied by the class of the tokenizer has no value.

    Raises: InputError.
    """
    if settings.get("split_special_tokens") is True:
        raise InputError(
            "tokenizer_config.json says split_special_tokens = true, with which transformers reads the marks "
            "of a chat template as text, and they are read as special tokens here (false); set it to false"
        )
    for key, there, where in _settings_of_both(content, settings):
        value = settings.get(key)
        if isinstance(value, bool) and value != there:
            raise InputError(
                f"tokenizer_config.json says {key} = {json.dumps(value)}, but {where} of tokenizer.json has "
                f"{json.dumps(there)}, and readers differ in which they take; make them say the same, or "
                f"take {key} out"
            )


def check_truncation(rule: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
    """Refuse a truncation_side that is no side, or absent where the rule of tokenizer.json cuts left.

    That rule is not kept, so an export could not name the side. Raises: InputError.
    """
    side = settings.get("truncation_side")
    if side not in (None, "left", "right"):
        raise InputError(
            f"tokenizer_config.json says truncation_side = {json.dumps(side)[:60]}; expected left or right"
        )
    if side is None and rule is not None and rule.get("direction") == "left":
        raise InputError(
            "the truncation of tokenizer.json cuts texts on the left, and tokenizer_config.json names no "
            'side; say truncation_side = "left" there'
        )


def choose_template(file: bytes | None, settings: Mapping[str, Any]) -> str | None:
    """The chat template of a chat_template.jinja, else of the settings: a text, or the one named default.

    Raises: InputError if it is no template, or longer than any is.
    """
    if file is not None:
        if why := durable.why_not_utf8(file):
            raise InputError(
                f"chat_template.jinja of the tokenizer is not UTF-8 text: {why}; save it as UTF-8"
            )
        template: Any = file.decode("utf-8")
    else:
        template = settings.get("chat_template")
    if isinstance(template, list):
        listed = [entry for entry in template if isinstance(entry, dict)]
        template = {str(entry.get("name")): entry.get("template") for entry in listed}
    if isinstance(template, dict):
        template = template.get("default", template)
    if template is not None and not isinstance(template, str):
        raise InputError(
            f"tokenizer_config.json says chat_template = {json.dumps(template)[:60]}; expected a text, or "
            "texts by name of which one is called default; mend it, or take it out"
        )
    if template is not None and len(template) > _LONGEST_TEMPLATE:
        raise InputError(
            f"the chat template of the tokenizer has {len(template):,} characters, over "
            f"{_LONGEST_TEMPLATE:,}; it may be broken or hostile: give another one"
        )
    return template


def apply_added_tokens(inner: "Inner", settings: Mapping[str, Any], eos_token: str) -> None:
    """Give added tokens the flags that transformers gives them, and make the named ones special.

    The end token is special in any case, as it would be parsed inside documents else.

    Raises: InputError if added_tokens_decoder is malformed.
    """
    from tokenizers import AddedToken

    roles = filter(None, (token_text(settings.get(role)) for role in ROLES))
    named = dict.fromkeys([eos_token, *roles, *_extra(settings)])
    known = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    changed = [token for token in _listed(settings) if repr(token) != repr(known.get(token.content))]
    for token in changed:
        token.special = token.special or token.content in named
    inner.add_tokens(changed)  # at once, as each call takes time for all tokens that there are
    special = []
    known = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    for text in named:
        old = known.get(text)
        if inner.token_to_id(text) is None or (old is not None and old.special):
            continue  # a token that the file has not would be an id that no model has
        flags = {"normalized": False} if old is None else {flag: getattr(old, flag) for flag in _FLAGS[:-1]}
        special.append(AddedToken(text, special=True, **flags))
    inner.add_special_tokens(special)


def token_text(token: Any) -> str | None:
    """The text of a token in settings, which is a string or an object with its content."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _check_settings(settings: Mapping[str, Any], name: str) -> None:
    try:
        json.dumps(settings, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} holds half of a surrogate pair, which is no text; mend it") from None
    for role in ROLES:
        if settings.get(role) is not None and token_text(settings[role]) is None:
            shown = json.dumps(settings[role])[:60]
            raise InputError(f"{name} says {role} = {shown}; expected the text of a token, or null")
    for flag in _BOOLEANS:
        if not isinstance(settings.get(flag), bool | None):
            shown = json.dumps(settings[flag])[:60]
            raise InputError(f"{name} says {flag} = {shown}; expected true, false or null")


def _settings_of_both(
    content: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, bool, str]]:
    """Settings that a tokenizer.json has too: name, its value there, and the rule that it stands in."""
    around = _around(content.get("post_processor"))
    for role, end in ("bos", 0), ("eos", -1):
        if (token := token_text(settings.get(f"{role}_token"))) is not None:
            yield f"add_{role}_token", around[end] == token, "post_processor"
    name = settings.get("tokenizer_class")
    name = name.removesuffix("Fast") if isinstance(name, str) else ""
    if name in _TAKE_THE_FILE:
        return
    normalizers = {part.get("type"): part for part in _parts(content.get("normalizer"), "normalizers")}
    splitters = {part.get("type"): part for part in _parts(content.get("pre_tokenizer"), "pretokenizers")}
    bert = normalizers.get("BertNormalizer")
    if bert is not None:
        lower, split = bert.get("lowercase", True), bert.get("handle_chinese_chars", True)
        strip = lower if bert.get("strip_accents") is None else bert["strip_accents"]
        yield "do_lower_case", lower, "normalizer.lowercase"
        yield "strip_accents", strip, "normalizer.strip_accents"
        yield "tokenize_chinese_chars", split, "normalizer.handle_chinese_chars"
    elif _LOWER_CASE.fullmatch(name):
        yield "do_lower_case", "Lowercase" in normalizers, "normalizer"
    if "ByteLevel" in splitters and name not in _LLAMA:
        has_prefix = splitters["ByteLevel"].get("add_prefix_space", True)
        yield "add_prefix_space", has_prefix, "pre_tokenizer.add_prefix_space"
    elif "Metaspace" in splitters and name not in _NO_PREFIX_SETTING:
        scheme = splitters["Metaspace"].get("prepend_scheme", "always")
        yield "add_prefix_space", scheme != "never", "pre_tokenizer.prepend_scheme"
        if name in _LLAMA and scheme != "never":
            yield "legacy", scheme == "always", "pre_tokenizer.prepend_scheme"
    elif name in _LLAMA and "ByteLevel" not in splitters:
        yield "add_prefix_space", "Prepend" in normalizers, "normalizer"


def _around(processor: Any) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and behind a text."""
    for part in _parts(processor, "processors"):
        if part.get("type") == "TemplateProcessing":
            single = [piece.get("SpecialToken", {}).get("id") for piece in part.get("single", ())]
            return (single[0], single[-1]) if single else (None, None)
        if part.get("type") in ("RobertaProcessing", "BertProcessing"):
            return part["cls"][0], part["sep"][0]
    return None, None


def _parts(rule: Any, name: str) -> list[Mapping[str, Any]]:
    """A rule, or those of a sequence, of which each may be one."""
    if not isinstance(rule, Mapping):
        return []
    if rule.get("type") != "Sequence":
        return [rule]
    return [part for inner in rule.get(name, ()) for part in _parts(inner, name)]


def _listed(settings: Mapping[str, Any]) -> "list[AddedToken]":
    """The tokens of added_tokens_decoder, by id. Raises: InputError if one is malformed."""
    from tokenizers import AddedToken

    listed = settings.get("added_tokens_decoder") or {}
    tokens: dict[int, AddedToken] = {}
    for number, values in listed.items() if isinstance(listed, dict) else [("", listed)]:
        text = values.get("content") if isinstance(values, dict) else None
        flags = {flag: values[flag] for flag in _FLAGS if flag in values} if isinstance(values, dict) else {}
        is_whole = isinstance(text, str) and text and re.fullmatch("[0-9]{1,9}", number)
        if not is_whole or not all(isinstance(flag, bool) for flag in flags.values()):
            raise InputError(
                f"tokenizer_config.json: added_tokens_decoder has {json.dumps({number: values})[:80]}; "
                'expected an id with {"content": "...", "lstrip": false, ...}; mend it, or take it out'
            )
        tokens[int(number)] = AddedToken(text, **flags)
    return [tokens[number] for number in sorted(tokens)]


def _extra(settings: Mapping[str, Any]) -> list[str]:
    """The special tokens without a role."""
    given = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    tokens = given.values() if isinstance(given, dict) else given if isinstance(given, list) else ()
    return [text for text in map(token_text, tokens) if text]

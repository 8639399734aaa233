"""The settings of a tokenizer_config.json that transformers puts over a tokenizer.json."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etude.durable import why_not_utf8
from etude.errors import InputError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Inner

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# These classes take a tokenizer.json as it is; the others of transformers build normalizer and pre-tokenizer
# anew.
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


def refuse_conflicts(content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises: InputError if a tokenizer.json and a tokenizer_config.json say one thing, and not the same.

    Versions of transformers differ in which of the two they take, so one of them would read other ids. A
    setting that is absent, null, or not applied by the class of the tokenizer says nothing.
    """
    if settings.get("split_special_tokens") is True:
        raise InputError(
            "tokenizer_config.json says split_special_tokens = true, with which transformers reads the marks "
            "of a chat template as text, and they are read as special tokens here (false); set it to false"
        )
    for key, said, meant, where in _both(content, settings):
        if isinstance(said, bool) and said != meant:
            raise InputError(
                f"tokenizer_config.json says {key} = {json.dumps(said)}, but {where} of tokenizer.json has "
                f"{json.dumps(meant)}, and readers differ in which they take; make them say the same, or "
                f"take {key} out"
            )


def check_settings(settings: Mapping[str, Any], name: str) -> None:
    """Raises: InputError if a text among settings is none, or a token or a flag is of another kind."""
    try:
        json.dumps(settings, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} holds half of a surrogate pair, which is no text; mend it") from None
    for role in ROLES:
        if settings.get(role) is not None and _content(settings[role]) is None:
            shown = json.dumps(settings[role])[:60]
            raise InputError(f"{name} says {role} = {shown}; expected the text of a token, or null")
    for flag in _BOOLEANS:
        if not isinstance(settings.get(flag), bool | None):
            shown = json.dumps(settings[flag])[:60]
            raise InputError(f"{name} says {flag} = {shown}; expected true, false or null")


def check_truncation(rule: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
    """Raises: InputError if truncation_side is no side, or absent where the truncation of a tokenizer.json
    cuts left.

    That rule is not kept, so the export could not say the side.
    """
    side = settings.get("truncation_side")
    if side not in (None, "left", "right"):
        raise InputError(
            f"tokenizer_config.json says truncation_side = {json.dumps(side)[:60]}; expected left or right"
        )
    if side is None and rule is not None and rule.get("direction") == "left":
        raise InputError(
            "the truncation of tokenizer.json cuts texts on the left, and tokenizer_config.json names no "
            "side; say "
            'truncation_side = "left" there'
        )


def choose_template(file: bytes | None, settings: Mapping[str, Any]) -> str | None:
    """The chat template of a chat_template.jinja, else of a tokenizer_config.json: a text, or the one named
    default.

    Raises: InputError if what is there is no template, or longer than any is.
    """
    if file is not None:
        if why := why_not_utf8(file):
            raise InputError(
                f"chat_template.jinja of the tokenizer is not UTF-8 text: {why}; save it as UTF-8"
            )
        template: Any = file.decode("utf-8")
    else:
        template = settings.get("chat_template")
    if isinstance(template, list):
        template = {
            str(each.get("name")): each.get("template") for each in template if isinstance(each, dict)
        }
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
    """Give added tokens the flags that transformers gives them, and make special what the settings name so.

    The end token is special in any case, as it would be parsed inside documents else.

    Raises: InputError if added_tokens_decoder is malformed.
    """
    from tokenizers import AddedToken

    named = [eos_token, *filter(None, (_content(settings.get(role)) for role in ROLES)), *_extra(settings)]
    known = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    names = frozenset(named)
    changed = [token for token in _listed(settings) if repr(token) != repr(known.get(token.content))]
    for token in changed:
        token.special = token.special or token.content in names
    inner.add_tokens(changed)  # at once, as each call takes time for all tokens that there are
    special = []
    known = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    for text in dict.fromkeys(named):
        old = known.get(text)
        if inner.token_to_id(text) is None or (old is not None and old.special):
            continue  # a token that the file has not would be an id that no model has
        flags = (
            {flag: getattr(old, flag) for flag in _FLAGS[:-1]} if old is not None else {"normalized": False}
        )
        special.append(AddedToken(text, special=True, **flags))
    inner.add_special_tokens(special)


def _both(content: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """Settings that both files have: name, value in tokenizer_config.json, in tokenizer.json, and where
    there.
    """
    around = _around(content.get("post_processor"))
    for role, end in ("bos", 0), ("eos", -1):
        if (token := _content(settings.get(f"{role}_token"))) is not None:
            yield (
                f"add_{role}_token",
                settings.get(f"add_{role}_token"),
                around[end] == token,
                "post_processor",
            )
    name = settings.get("tokenizer_class")
    name = name.removesuffix("Fast") if isinstance(name, str) else ""
    if name in _TAKE_THE_FILE:
        return
    normalizers = {part.get("type"): part for part in _parts(content.get("normalizer"), "normalizers")}
    splitters = {part.get("type"): part for part in _parts(content.get("pre_tokenizer"), "pretokenizers")}
    bert = normalizers.get("BertNormalizer")
    if bert is not None:
        lower = bert.get("lowercase", True)
        strip = lower if bert.get("strip_accents") is None else bert["strip_accents"]
        yield "do_lower_case", settings.get("do_lower_case"), lower, "normalizer.lowercase"
        yield "strip_accents", settings.get("strip_accents"), strip, "normalizer.strip_accents"
        split = bert.get("handle_chinese_chars", True)
        yield (
            "tokenize_chinese_chars",
            settings.get("tokenize_chinese_chars"),
            split,
            "normalizer.handle_chinese_chars",
        )
    elif _LOWER_CASE.fullmatch(name):
        yield "do_lower_case", settings.get("do_lower_case"), "Lowercase" in normalizers, "normalizer"
    prefix = settings.get("add_prefix_space")
    if "ByteLevel" in splitters and name not in _LLAMA:
        has_prefix = splitters["ByteLevel"].get("add_prefix_space", True)
        yield "add_prefix_space", prefix, has_prefix, "pre_tokenizer.add_prefix_space"
    elif "Metaspace" in splitters and name not in _NO_PREFIX_SETTING:
        scheme = splitters["Metaspace"].get("prepend_scheme", "always")
        yield "add_prefix_space", prefix, scheme != "never", "pre_tokenizer.prepend_scheme"
        if name in _LLAMA and scheme != "never":
            yield "legacy", settings.get("legacy"), scheme == "always", "pre_tokenizer.prepend_scheme"
    elif name in _LLAMA and "ByteLevel" not in splitters:
        yield "add_prefix_space", prefix, "Prepend" in normalizers, "normalizer"


def _around(processor: Any) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and behind a text."""
    for part in _parts(processor, "processors"):
        if part.get("type") == "TemplateProcessing":
            single = [each.get("SpecialToken", {}).get("id") for each in part.get("single", ())]
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
    return [part for each in rule.get(name, ()) for part in _parts(each, name)]


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
                "expected "
                'an id with {"content": "...", "lstrip": false, ...}; mend it, or take it out'
            )
        tokens[int(number)] = AddedToken(text, **flags)
    return [tokens[number] for number in sorted(tokens)]


def _extra(settings: Mapping[str, Any]) -> list[str]:
    """The special tokens without a role."""
    given = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    each = given.values() if isinstance(given, dict) else given if isinstance(given, list) else ()
    return [text for text in map(_content, each) if text]


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None

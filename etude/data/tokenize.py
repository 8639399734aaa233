"""From text to token ids and back: a tokenizer that is loaded, or a byte-level BPE that is trained."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from etude import durable
from etude.data.lost import BYTE_SIGNS, can_lose, count_lost
from etude.data.patience import read_in_time
from etude.data.token_settings import (
    ROLES,
    apply_added_tokens,
    check_settings,
    check_truncation,
    choose_template,
    refuse_conflicts,
)
from etude.data.vet import convert, vet
from etude.errors import InputError
from etude.recipe import schema

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Inner

Ids = npt.NDArray[np.int64]
# Of a token: in which text it is, -1 for a special token, and the characters where it begins and ends.
Span = tuple[int, int, int]

TRAINED_EOS = "<|endoftext|>"
TRAINED_MASKS = {"pad_token": "<pad>", "mask_token": "<mask>"}
_PADDING = TRAINED_MASKS["pad_token"]
_KNOWN_EOS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
# What makes a folder a tokenizer for other tools.
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "added_tokens.json", "tokenizer.model",
)  # fmt: skip
_ANEW = "run etude prepare RECIPE --again"
_LARGEST_BYTES = 64 << 20  # of a tokenizer.json; the largest known has 35 MB
_MOST_GROWTH = 64  # tokens for each byte of a text
# Around text within a message that looks like a special token. Unicode keeps these for use within a program.
MARKS = "\ufdd0", "\ufdd1"
_BEFORE = "\n", "a", "0", "("
_RESERVED = re.compile("[\ufdd0-\ufdd3]")
# Words with the sign before them (so `self._name` splits at the dot and the underscore), digits by threes,
# signs with the line end and the indentation that follow, blank lines with the indentation that follows.
# Measured on held-out standard library, vocabulary 4,096, bytes a token: this 4.02; line ends apart from
# signs 3.83; the pattern of Qwen2 with digits by threes 3.77; of GPT-2 3.69. Whole identifiers give 4.03,
# which is no gain.
_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+(?:(?:[ \t]*\r?\n)+[ \t]*)?"
    r"|(?:[ \t]*\r?\n)+[ \t]*|[ \t]+(?!\S)|\s+"
)


class Tokenizer:
    """Token ids for text; the text of a special token inside a document is text, so it never ends the
    document.

    `json_text` is the content of a tokenizer.json; it is parsed when first used, so that a cached start costs
    nothing. `given` are the files it was made from, if they came as a folder.
    """

    def __init__(self, json_text: str, eos_token: str, given: Mapping[str, bytes] | None = None) -> None:
        self._json = json_text
        self._lock = threading.Lock()
        self.eos_token = eos_token
        self.given = dict(given or {})

    def encode(self, text: str) -> Ids:
        """The ids of one text, without any special token; shape (n,)."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[Ids]:
        """The ids of each text, on all cores."""
        with self._lock:
            self._inner.encode_special_tokens = True
            self._inner.no_truncation()
            encodings = _encoded(self._inner.encode_batch_fast, texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def encode_rendered(self, text: str, *, is_start: bool = True) -> list[int]:
        """The ids of what a chat template wrote: its special tokens are special, those marked in messages are
        text.

        is_start: whether nothing stands before the text; some tokenizers put a space before what they take
        for a start.
        """
        ids: list[int] = []
        for index, piece in enumerate(self._marked.split(text)):
            if piece := unmark(piece):
                ids += self._encode_on(piece, is_start=is_start and not ids, with_special=index % 2 == 0)
        return ids

    def encode_rendered_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts that have no mark, as `encode_rendered` gives them, on all cores."""
        return [encoding.ids for encoding in self._parse(texts, fast=True)]

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of texts that have no mark, and in which character each token starts."""
        encodings = self._parse(texts, fast=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]

    def encode_joined(
        self, texts: Sequence[tuple[str, str | None]], longest: int | None = None, *, with_spans: bool = False
    ) -> list[tuple[Ids, int, bool, list[Span] | None]]:
        """Texts, or pairs of them, with the special tokens that a model wants around them, on all cores.

        Of each the ids, where the second text begins (their number if there is none), whether it was cut to
        `longest` tokens, and the spans if they are wanted; of a pair the longer text is cut, on the side that
        the tokenizer says. A tokenizer without such tokens puts its end token there.

        Raises: InputError if `longest` leaves no token for one of the texts.
        """
        with self._lock:
            self._inner.encode_special_tokens = True
            self._inner.no_padding()
            if self._is_bare:
                self._inner.post_processor = _around(self.eos_token, self.eos_id)
            given = [text if pair is None else (text, pair) for text, pair in texts]
            self._inner.no_truncation()
            if longest is not None:
                are_pairs = any(pair is not None for _, pair in texts)
                around = self._inner.num_special_tokens_to_add(are_pairs)
                if longest < (least := around + 1 + are_pairs):
                    raise InputError(
                        f"train.seq_len {longest} has no room for "
                        f"{'pairs of texts' if are_pairs else 'texts'} beside the {around} special tokens "
                        f"around them; use at least {least}"
                    )
                self._inner.enable_truncation(
                    longest, strategy="longest_first", direction=self.truncation_side
                )
            # Whoever encodes next takes truncation back: where a text took too long, nothing can be set.
            encodings = _encoded(self._inner.encode_batch, given, add_special_tokens=True)
        return [
            (
                np.array(each.ids, dtype=np.int64),
                each.type_ids.index(1) if 1 in each.type_ids else len(each.ids),
                bool(each.overflowing),
                _spans(each) if with_spans else None,
            )
            for each in encodings
        ]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ids; special tokens are left out unless `skip_special` is false."""
        return str(self._inner.decode([int(token) for token in ids], skip_special_tokens=skip_special))

    @cached_property
    def vocab_size(self) -> int:
        """The highest id, plus one."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def eos_id(self) -> int:
        """The id that stands after every document."""
        eos_id = self._inner.token_to_id(self.eos_token)
        if eos_id is None:  # load_tokenizer and train_tokenizer choose one that is there
            raise InputError(f"prepared data is damaged: no token is {self.eos_token[:40]!r}; {_ANEW}")
        return int(eos_id)

    @cached_property
    def pad_id(self) -> int | None:
        """The id of the padding token, if there is one."""
        padding = self.variables.get("pad_token")
        known = [padding, "<pad>", "[PAD]"]
        ids = (self._inner.token_to_id(token) for token in known if token)
        return next((number for number in ids if number is not None), None)

    @cached_property
    def mask_id(self) -> int | None:
        """The id that stands for a hidden token, if there is one."""
        known = (self.variables.get("mask_token"), "<mask>", "[MASK]")
        ids = (self._inner.token_to_id(token) for token in known if token)
        return next((number for number in ids if number is not None), None)

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of all special tokens."""
        return tuple(
            sorted(i for i, token in self._inner.get_added_tokens_decoder().items() if token.special)
        )

    @cached_property
    def bos_id(self) -> int | None:
        """The id that the tokenizer puts before a text, if it does."""
        if self._is_bare:
            return None
        first, plain = self._inner.encode("a").ids, self._inner.encode("a", add_special_tokens=False).ids
        return int(first[0]) if first[:1] != plain[:1] else None

    @cached_property
    def added_ids(self) -> tuple[int, ...]:
        """The ids of tokens that were added to the vocabulary, special or not."""
        return tuple(sorted(self._inner.get_added_tokens_decoder()))

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The texts that stand for special tokens, the longest first."""
        added = self._inner.get_added_tokens_decoder().values()
        return tuple(
            sorted((token.content for token in added if token.special), key=lambda text: (-len(text), text))
        )

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template that came with the tokenizer, as Jinja source."""
        return choose_template(self.given.get("chat_template.jinja"), self._settings)

    @cached_property
    def variables(self) -> dict[str, str]:
        """The special tokens that a chat template may name, such as eos_token."""
        named = {role: _content(self._settings.get(role)) for role in ROLES}
        return {role: token for role, token in named.items() if token is not None} | {
            "eos_token": self.eos_token
        }

    @cached_property
    def truncation_side(self) -> str:
        """The side on which a text that is too long is cut, `right` or `left`, by other tools too."""
        return str(self._settings.get("truncation_side", "right"))

    def with_chat_template(self, template: str) -> "Tokenizer":
        """The same tokenizer, with another chat template among its files."""
        return Tokenizer(self._json, self.eos_token, self.given | {"chat_template.jinja": template.encode()})

    @cached_property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary does not know, if the tokenizer has one that is not its end token
        too.
        """
        model = self._content["model"]
        number: int | None = model.get("unk_id")  # of a Unigram
        if model.get("unk_token") is not None:
            number = self._inner.token_to_id(model["unk_token"])
        return None if number == self.eos_id else number

    @cached_property
    def can_lose_text(self) -> bool:
        """Whether characters may vanish: the tokenizer has neither all bytes nor an unknown token."""
        return can_lose(self._content)

    def count_lost(self, text: str) -> int:
        """How many bytes of a text no token stands for."""
        return count_lost(self._inner, self._content, text) if self.can_lose_text else 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the tokenizer is."""
        canonical = json.dumps([json.loads(self._json), self.eos_token], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The content of a tokenizer.json."""
        return self._json

    def choose_padding(self, known: int | None, rows: int) -> int:
        """An id to pad with for a model that finds the end of a text by what is not padding: `known` where
        that does.

        Else another special token, or a row without a token of the `rows` that the model embeds; never what
        every text ends with.
        """
        last = int(self.encode_joined([("a", None)])[0][0][-1])
        wanted: tuple[int | None, ...] = (
            known,
            self.pad_id,
            *self.special_ids,
            *range(self.vocab_size, rows),
            0,
            1,
        )
        return next(number for number in wanted if number is not None and number != last)

    def files(self, *, joined: bool = False, pad_id: int | None = None) -> dict[str, bytes]:
        """What a folder needs so that transformers' AutoTokenizer loads the same tokenizer from it.

        What was given stays as it was; but if `joined`, the tokens that `encode_joined` puts around texts are
        put there by other tools too, and texts are padded with `pad_id`.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.eos_token,
            "clean_up_tokenization_spaces": False,
            **{role: token for role, token in TRAINED_MASKS.items() if token in self.special_tokens},
        }
        ours = {
            "tokenizer.json": self._json.encode(),
            "tokenizer_config.json": json.dumps(config, indent=2).encode(),
        }
        files = ours | self.given
        return files | self._joining(files, pad_id) if joined else files

    def _joining(self, files: Mapping[str, bytes], pad_id: int | None) -> dict[str, bytes]:
        """Those of the files that differ so that other tools join and pad texts as is done here."""
        content = json.loads(self._json)
        if self._is_bare:
            content["post_processor"] = json.loads(_around(self.eos_token, self.eos_id).__getstate__())
        names = {each["id"]: each["content"] for each in content["added_tokens"] if each["special"]}
        if (
            pad_id == self.vocab_size and self._inner.token_to_id(_PADDING) is None
        ):  # a row that has no token yet
            names[pad_id] = _PADDING
            plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            content["added_tokens"].append({"id": pad_id, "content": _PADDING, "special": True, **plain})
        changed = {"tokenizer.json": json.dumps(content, ensure_ascii=False).encode()}
        for name in files.keys() & {"tokenizer_config.json", "special_tokens_map.json"}:
            settings = json.loads(files[name]) | ({"pad_token": names[pad_id]} if pad_id in names else {})
            for key in ("add_bos_token", "add_eos_token") if self._is_bare else ():
                settings.pop(key, None)  # with them, transformers makes the post-processor anew
            changed[name] = json.dumps(settings, indent=2, ensure_ascii=False).encode()
        return changed

    def _encode_on(self, text: str, *, is_start: bool, with_special: bool) -> list[int]:
        """The ids of a text that goes on from another."""

        def ids(text: str) -> list[int]:
            return (
                self.encode_rendered_batch([text])[0]
                if with_special
                else [int(each) for each in self.encode(text)]
            )

        if is_start or not self._marks_starts:
            return ids(text)
        # Behind another text, with which it does not melt.
        both = ((ids(before), ids(before + text)) for before in _BEFORE)
        return next((after[len(first) :] for first, after in both if after[: len(first)] == first), ids(text))

    @cached_property
    def _marked(self) -> re.Pattern[str]:
        # A template may cut a message at any place, so a mark alone means nothing.
        return re.compile(f"{MARKS[0]}({any_of(self.special_tokens).pattern}){MARKS[1]}")

    @cached_property
    def _is_bare(self) -> bool:
        # Asked before anything is put around texts.
        return not self._inner.num_special_tokens_to_add(False)

    @cached_property
    def _marks_starts(self) -> bool:
        start, before, both = (self.encode(text).tolist() for text in ("a", "\n", "\na"))
        return bool(both != before + start)

    def _parse(self, texts: list[str], *, fast: bool) -> list[Any]:
        with self._lock:
            self._inner.encode_special_tokens = False
            self._inner.no_truncation()
            encode = self._inner.encode_batch_fast if fast else self._inner.encode_batch
            return _encoded(encode, texts, add_special_tokens=False)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return _read_settings(self.given)

    @cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._json)
        return content

    @cached_property
    def _inner(self) -> "Inner":
        from tokenizers import Tokenizer as Inner

        try:
            return Inner.from_str(self._json)
        except Exception as error:  # tokenizers raises nothing more precise
            why = " ".join(str(error).split())[:100]
            raise InputError(f"prepared data is damaged: tokenizer.json is none ({why}); {_ANEW}") from None


def load_tokenizer(section: schema.Tokenizer) -> Tokenizer:
    """The tokenizer that a recipe names: a tokenizer.json, or a folder with one, or with vocab.json and
    merges.txt.

    Raises: InputError if it cannot be loaded, or if no token is known to end a document.
    """
    assert section.from_ is not None, "rules.py asks for one of from and train_vocab_size"
    path = Path(section.from_)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not os.path.lexists(file):
        inner = _load_folder(path)
    else:
        inner = _load_json(file)
    given = _read_given(path)
    settings = _read_settings(given, path)
    check_truncation(inner.truncation, settings)
    inner.no_truncation()
    inner.no_padding()
    refuse_conflicts(json.loads(inner.to_str()), settings)
    eos = _find_eos(inner, section.eos_token, file.parent)
    apply_added_tokens(inner, settings, eos)
    if section.eos_token is not None and "tokenizer_config.json" in given:
        changed = json.loads(given["tokenizer_config.json"]) | {"eos_token": eos}
        given["tokenizer_config.json"] = json.dumps(changed, indent=2, ensure_ascii=False).encode()
    return Tokenizer(inner.to_str(), eos, given)


def tokenizer_key(section: schema.Tokenizer) -> list[Any]:
    """What tells, without loading it, whether a tokenizer is still the same.

    Raises: InputError if it is not there.
    """
    assert section.from_ is not None
    path = Path(section.from_)
    files = (
        [path / name for name in FILES] if path.is_dir() else [path, *(path.parent / name for name in FILES)]
    )
    hashes = [
        [file.name, hashlib.sha256(_read(file)).hexdigest()]
        for file in files
        if file == path or os.path.lexists(file)
    ]
    return [section.eos_token, hashes]


def tells_date(section: schema.Tokenizer) -> bool:
    """Whether the chat template of a tokenizer may write the day that it is."""
    assert section.from_ is not None
    path = Path(section.from_)
    files = [(path if path.is_dir() else path.parent) / name for name in FILES if name != "tokenizer.json"]
    return any(b"strftime_now" in _read(file) for file in files if file.is_file())


def mark_special(text: str, special_tokens: Sequence[str]) -> str:
    """Mark what would be read as a special token in a text that a person wrote. Raises: InputError.

    The marks are no characters, so a text that has them is refused.
    """
    if _RESERVED.search(text):
        raise InputError("a message holds U+FDD0 to U+FDD3, which Unicode keeps for programs; take them out")
    return any_of(tuple(special_tokens)).sub(f"{MARKS[0]}\\g<0>{MARKS[1]}", text)


def unmark(text: str) -> str:
    """The text as it was written."""
    return text.replace(MARKS[0], "").replace(MARKS[1], "")


@cache
def any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """What matches one of these texts, the first that fits."""
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def train_tokenizer(documents: Iterable[str], vocab_size: int, *, is_masked: bool = False) -> Tokenizer:
    """Train a byte-level BPE suited to code, with a token for what is masked if so; the same documents give
    the same.

    Any text comes back unchanged from its ids. A small text gives fewer tokens than `vocab_size`; id 0 ends a
    document.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Inner

    inner = Inner(models.BPE())
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[TRAINED_EOS, *(TRAINED_MASKS.values() if is_masked else ())],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(documents, trainer)
    return Tokenizer(inner.to_str(), TRAINED_EOS)


def token_bytes(tokenizer: Tokenizer) -> Ids | None:
    """Bytes of text that each id stands for, 0 for special tokens, shape (vocab_size,); None if not
    byte-level.
    """
    content = json.loads(tokenizer.to_json())
    if '"ByteLevel"' not in json.dumps([content["pre_tokenizer"], content["decoder"]]):
        return None
    sizes = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token, index in content["model"]["vocab"].items():
        sizes[index] = len(token)  # one character stands for one byte
    for added in content["added_tokens"]:
        sizes[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return sizes


def token_spellings(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of text that each id stands for, none for special tokens; None if ids do not tell them.

    Those of byte-level tokenizers do, and those of others that spell what they do not know in bytes.
    """
    if tokenizer.can_lose_text:
        return None
    content = json.loads(tokenizer.to_json())
    spellings = [b""] * tokenizer.vocab_size
    if token_bytes(tokenizer) is not None:
        for token, index in content["model"]["vocab"].items():
            spellings[index] = bytes(BYTE_SIGNS[sign] for sign in token if sign in BYTE_SIGNS)
    elif content["model"].get("byte_fallback"):
        listed = content["model"]["vocab"]
        pairs = (
            listed.items()
            if isinstance(listed, dict)
            else ((each[0], index) for index, each in enumerate(listed))
        )
        for token, index in pairs:
            is_byte = re.fullmatch("<0x[0-9A-F]{2}>", token)
            spellings[index] = (
                bytes([int(token[3:5], 16)]) if is_byte else token.replace("\u2581", " ").encode()
            )
    else:
        return None
    for added in content["added_tokens"]:
        spellings[added["id"]] = b"" if added["special"] else added["content"].encode()
    return spellings


def _spans(encoding: Any) -> list[Span]:
    pairs = zip(encoding.sequence_ids, encoding.offsets)
    return [(-1 if text is None else text, begin, end) for text, (begin, end) in pairs]


def _around(token: str, number: int) -> Any:
    """What puts a token before, between and behind texts."""
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(
        single=f"{token} $A {token}",
        pair=f"{token} $A {token} $B:1 {token}:1",
        special_tokens=[(token, number)],
    )


def _load_json(file: Path) -> "Inner":
    text = _read_text(file)
    vet(text, str(file))
    return _parse(text, file)


def _parse(text: str, file: Path) -> "Inner":
    from tokenizers import Tokenizer as Inner

    try:
        return Inner.from_str(text)
    except Exception as error:  # tokenizers raises nothing more precise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"tokenizer {file} is no tokenizer.json ({reason}); give one, or a folder with one"
        ) from None


def _load_folder(folder: Path) -> "Inner":
    if not all(os.path.lexists(folder / name) for name in ("vocab.json", "merges.txt")):
        raise InputError(
            f"tokenizer {folder} has no tokenizer.json; give a folder with one, or the file itself"
        )
    size = sum(len(_read(folder / name)) for name in FILES if os.path.lexists(folder / name))
    text = convert(folder, size)
    vet(text, str(folder))
    return _parse(text, folder)


def _find_eos(inner: "Inner", asked: str | None, folder: Path) -> str:
    if asked is not None:
        if inner.token_to_id(asked) is None:
            raise InputError(
                f"tokenizer.eos_token {asked!r} is no token of the tokenizer; name one that it has"
            )
        return asked
    given = {file.name: _read(file) for file in map(folder.joinpath, FILES[1:3]) if os.path.lexists(file)}
    said = _content(_read_settings(given, folder).get("eos_token"))
    if said and inner.token_to_id(said) is None:
        raise InputError(
            f"the tokenizer in {folder} says eos_token = {said[:40]!r}, which is none of its tokens; set "
            "tokenizer.eos_token to one that it has"
        )
    for token in [said, *_KNOWN_EOS]:
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
    given = {file.name: _read(file) for file in map(folder.joinpath, FILES) if os.path.lexists(file)}
    if "chat_template.jinja" in given:
        _read_text(folder / "chat_template.jinja")
    return given


def _read_settings(given: Mapping[str, bytes], folder: Path = Path()) -> dict[str, Any]:
    """What tokenizer_config.json says, and special_tokens_map.json where that says nothing."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            text = given.get(name, b"{}").decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{folder / name} is not UTF-8 text; save it as UTF-8") from None
        read = durable.parse_json(text, folder / name)
        if not isinstance(read, dict):
            raise InputError(f"{folder / name} holds no JSON object; repair or remove it")
        check_settings(read, str(folder / name))
        settings |= {key: value for key, value in read.items() if value is not None}
    return settings


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _encoded(encode: Callable[..., list[Any]], texts: list[Any], **settings: Any) -> list[Any]:
    """The encodings of texts by a function of the native library.

    Raises: InputError that names the text which the tokenizer cannot read, takes too long for, or makes far
    too many tokens of.
    """
    try:
        encodings = read_in_time(lambda: encode(texts, **settings), texts)
    except BaseException as error:
        if isinstance(error, TypeError) and (torn := next(filter(_is_torn, texts), None)):
            raise InputError(
                f"the text that begins {str(torn)[:60]!r} holds half of a surrogate pair; mend it"
            ) from None
        if not _is_native(error):
            raise
        text, reason = next(
            filter(None, (_refusal(encode, each, settings) for each in texts)), ("", str(error))
        )
        raise InputError(
            f"the tokenizer cannot read the text that begins {text[:60]!r} "
            f"({' '.join(reason.split())[:100]}); use a tokenizer that has a token for it"
        ) from None
    for text, encoding in zip(texts, encodings):
        whole = text if isinstance(text, str) else "".join(text)
        if len(encoding) > _MOST_GROWTH * (len(whole) + 1) and len(encoding) > _MOST_GROWTH * (
            len(whole.encode()) + 1
        ):
            raise InputError(
                f"the tokenizer makes {len(encoding):,} tokens of the text that begins {whole[:60]!r}; "
                "it may be broken or hostile: use another one"
            )
    return encodings


def _is_torn(text: Any) -> bool:
    """Whether a text, or one of a pair, holds half of a surrogate pair, which is no text."""
    return any("\ud800" <= sign <= "\udfff" for sign in (text if isinstance(text, str) else "".join(text)))


def _refusal(encode: Callable[..., list[Any]], text: Any, settings: dict[str, Any]) -> tuple[str, str] | None:
    try:
        encode([text], **settings)
    except BaseException as error:
        if not _is_native(error):
            raise
        return text if isinstance(text, str) else " ".join(text), str(error)
    return None


def _is_native(error: BaseException) -> bool:
    """Whether the library of tokenizers raised it: nothing more precise than Exception, or a panic of its
    code.
    """
    return type(error) is Exception or type(error).__name__ == "PanicException"


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

"""From text to token ids and back."""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from etude.data.lost import can_lose, count_lost
from etude.data.patience import encode_in_time
from etude.data.token_settings import ROLES, choose_template, read_settings, token_text
from etude.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Inner

Ids = npt.NDArray[np.int64]
# The text that a token is in, -1 for a special token, and the characters where the token begins and ends.
Span = tuple[int, int, int]

TRAINED_EOS = "<|endoftext|>"
TRAINED_MASKS = {"pad_token": "<pad>", "mask_token": "<mask>"}
_PADDING = TRAINED_MASKS["pad_token"]
# Around text within a message that looks like a special token. Unicode keeps these for use within a program.
MARKS = "\ufdd0", "\ufdd1"
_RESERVED = re.compile("[\ufdd0-\ufdd3]")
_BEFORE = "\n", "a", "0", "("
ENOUGH_BEFORE = 8  # tokens of a text, of which up to four are one character


class Tokenizer:
    """Token ids for text; the text of a special token within a document is read as text, so it ends none.

    `json_text` is the content of a tokenizer.json, parsed when first used, so that a cached start costs
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
        encodings = self._encode(texts, specials_are_text=True, fast=True)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def encode_rendered(self, text: str, *, is_start: bool = True) -> list[int]:
        """The ids of the text of a chat template: its special tokens are special, those marked are text.

        is_start: nothing stands before the text; some tokenizers put a space before a start.
        """
        ids: list[int] = []
        for index, piece in enumerate(self._marked.split(text)):
            if piece := unmark(piece):
                ids += self._encode_on(piece, is_start=is_start and not ids, is_text=index % 2 == 1)
        return ids

    def encode_rendered_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts without a mark, as `encode_rendered` gives them, on all cores."""
        return [encoding.ids for encoding in self._encode(texts, specials_are_text=False, fast=True)]

    def encode_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of texts without a mark, and the character where each token starts."""
        encodings = self._encode(texts, specials_are_text=False, fast=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]

    def encode_joined(
        self, texts: Sequence[tuple[str, str | None]], longest: int | None = None, *, with_spans: bool = False
    ) -> list[tuple[Ids, int, bool, list[Span] | None]]:
        """Texts, or pairs of them, with the special tokens that a model wants around them, on all cores.

        For each the ids, the place where the second text begins (their number if there is none), whether it
        was cut to `longest` tokens, and the spans if they are wanted; of a pair the longer text is cut, on
        `truncation_side`. A tokenizer without such tokens puts its end token there.

        Raises: InputError if `longest` leaves no token for one of the texts.
        """
        with self._lock:
            self._inner.encode_special_tokens = True
            self._inner.no_padding()
            if self._is_bare:
                self._inner.post_processor = _surround(self.eos_token, self.eos_id)
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
                side = self.truncation_side
                self._inner.enable_truncation(longest, strategy="longest_first", direction=side)
            # The next call takes truncation back: where a text took too long, nothing can be set.
            encode = self._inner.encode_batch if with_spans else self._inner.encode_batch_fast
            encodings = encode_in_time(encode, given, add_special_tokens=True)
        return [
            (
                np.array(encoding.ids, dtype=np.int64),
                encoding.type_ids.index(1) if 1 in encoding.type_ids else len(encoding.ids),
                bool(encoding.overflowing),
                _spans(encoding) if with_spans else None,
            )
            for encoding in encodings
        ]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ids; special tokens are left out unless `skip_special` is false."""
        return str(self._inner.decode([int(token) for token in ids], skip_special_tokens=skip_special))

    def decode_after(self, before: Sequence[int], ids: Iterable[int]) -> str:
        """The text that ids add to others before them.

        Alone, what they stand for may lose its first space: tokenizers of SentencePiece's kind take the one
        away that they put before a text.
        """
        last = list(before[-ENOUGH_BEFORE:])
        start, text = self.decode(last), self.decode([*last, *ids])
        return text[len(start) :] if text.startswith(start) else text.removeprefix(start.rstrip("\ufffd"))

    @cached_property
    def vocab_size(self) -> int:
        """The highest id, plus one."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def eos_id(self) -> int:
        """The id that stands after every document."""
        number = self._first_id(self.eos_token)
        if number is None:  # load_tokenizer and train_tokenizer choose one that is there
            raise _damaged(f"no token is {self.eos_token[:40]!r}")
        return number

    @cached_property
    def pad_id(self) -> int | None:
        """The id of the padding token, if there is one."""
        return self._first_id(self.variables.get("pad_token"), "<pad>", "[PAD]")

    @cached_property
    def mask_id(self) -> int | None:
        """The id that stands for a hidden token, if there is one."""
        return self._first_id(self.variables.get("mask_token"), "<mask>", "[MASK]")

    @cached_property
    def unk_id(self) -> int | None:
        """The id of the token for unknown text, if there is one and it is not the end token too."""
        model = self._content["model"]
        number: int | None = model.get("unk_id")  # of a Unigram
        if model.get("unk_token") is not None:
            number = self._inner.token_to_id(model["unk_token"])
        return None if number == self.eos_id else number

    @cached_property
    def bos_id(self) -> int | None:
        """The id that the tokenizer puts before a text, if it does."""
        if self._is_bare:
            return None
        first, plain = self._inner.encode("a").ids, self._inner.encode("a", add_special_tokens=False).ids
        return int(first[0]) if first[:1] != plain[:1] else None

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of all special tokens."""
        added = self._inner.get_added_tokens_decoder().items()
        return tuple(sorted(number for number, token in added if token.special))

    @cached_property
    def added_ids(self) -> tuple[int, ...]:
        """The ids of tokens that were added to the vocabulary, special or not."""
        return tuple(sorted(self._inner.get_added_tokens_decoder()))

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The texts that stand for special tokens, the longest first."""
        added = self._inner.get_added_tokens_decoder().values()
        texts = (token.content for token in added if token.special)
        return tuple(sorted(texts, key=lambda text: (-len(text), text)))

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template that came with the tokenizer, as Jinja source."""
        return choose_template(self.given.get("chat_template.jinja"), self._settings)

    @cached_property
    def variables(self) -> dict[str, str]:
        """The special tokens that a chat template may name, such as eos_token."""
        texts = ((role, token_text(self._settings.get(role))) for role in ROLES)
        return {role: text for role, text in texts if text is not None} | {"eos_token": self.eos_token}

    @cached_property
    def truncation_side(self) -> str:
        """The side on which a text that is too long is cut, `right` or `left`, by other tools too."""
        return str(self._settings.get("truncation_side", "right"))

    @cached_property
    def can_lose_text(self) -> bool:
        """True if the tokenizer has neither all bytes nor an unknown token, so that characters may vanish."""
        return can_lose(self._content)

    def count_lost(self, text: str) -> int:
        """The number of bytes of a text that no token stands for."""
        return count_lost(self._inner, self._content, text) if self.can_lose_text else 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content and the end token."""
        canonical = json.dumps([json.loads(self._json), self.eos_token], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The content of a tokenizer.json."""
        return self._json

    def with_chat_template(self, template: str) -> "Tokenizer":
        """The same tokenizer, with another chat template among its files."""
        return Tokenizer(self._json, self.eos_token, self.given | {"chat_template.jinja": template.encode()})

    def choose_padding(self, known: int | None, rows: int) -> int:
        """An id to pad with for a model that finds the end of a text as the last token that is no padding.

        It is `known` where that does, else another special token, or a row without a token of the `rows`
        that the model embeds; never the token that every text ends with.
        """
        last = int(self.encode_joined([("a", None)])[0][0][-1])
        wanted: list[int | None] = [
            known,
            self.pad_id,
            *self.special_ids,
            *range(self.vocab_size, rows),
            0,
            1,
        ]
        return next(number for number in wanted if number is not None and number != last)

    def files(self, *, joined: bool = False, pad_id: int | None = None) -> dict[str, bytes]:
        """The files of a folder from which transformers' AutoTokenizer loads the same tokenizer.

        Given files stay as they were; but if `joined`, other tools put the tokens of `encode_joined` around
        texts too, and pad them with `pad_id`.
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
        return files | self._join_files(files, pad_id) if joined else files

    def _join_files(self, files: Mapping[str, bytes], pad_id: int | None) -> dict[str, bytes]:
        """The files that change so that other tools join and pad texts as `encode_joined` does."""
        content = json.loads(self._json)
        if self._is_bare:
            content["post_processor"] = json.loads(_surround(self.eos_token, self.eos_id).__getstate__())
        names = {token["id"]: token["content"] for token in content["added_tokens"] if token["special"]}
        if pad_id == self.vocab_size and self._first_id(_PADDING) is None:  # a row that has no token yet
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

    def _encode_on(self, text: str, *, is_start: bool, is_text: bool) -> list[int]:
        """The ids of a text that goes on from another."""

        def ids(text: str) -> list[int]:
            (encoding,) = self._encode([text], specials_are_text=is_text, fast=True)
            return list(encoding.ids)

        if is_start or not self._marks_starts:
            return ids(text)
        # Behind another text, with which it does not melt.
        both = ((ids(before), ids(before + text)) for before in _BEFORE)
        return next((after[len(first) :] for first, after in both if after[: len(first)] == first), ids(text))

    def _encode(self, texts: list[str], *, specials_are_text: bool, fast: bool) -> list[Any]:
        """The encodings of texts, without tokens around them. fast: without the characters of tokens."""
        with self._lock:
            self._inner.encode_special_tokens = specials_are_text
            self._inner.no_truncation()
            encode = self._inner.encode_batch_fast if fast else self._inner.encode_batch
            return encode_in_time(encode, texts, add_special_tokens=False)

    def _first_id(self, *tokens: str | None) -> int | None:
        """The id of the first of these texts that is a token."""
        ids = (self._inner.token_to_id(token) for token in tokens if token)
        return next((int(number) for number in ids if number is not None), None)

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

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return read_settings(self.given)

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
            raise _damaged(f"tokenizer.json is none ({' '.join(str(error).split())[:100]})") from None


def mark_special(text: str, special_tokens: Sequence[str]) -> str:
    """Mark special tokens in a text of a person. Raises: InputError for a text that holds marks."""
    if _RESERVED.search(text):
        raise InputError("a message holds U+FDD0 to U+FDD3, which Unicode keeps for programs; take them out")
    return any_of(tuple(special_tokens)).sub(f"{MARKS[0]}\\g<0>{MARKS[1]}", text)


def unmark(text: str) -> str:
    """The text as it was written."""
    return text.replace(MARKS[0], "").replace(MARKS[1], "")


@cache
def any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that matches the first of these texts that fits."""
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def _spans(encoding: Any) -> list[Span]:
    pairs = zip(encoding.sequence_ids, encoding.offsets)
    return [(-1 if text is None else text, begin, end) for text, (begin, end) in pairs]


def _surround(token: str, number: int) -> Any:
    """A post-processor that puts a token before, between and behind texts."""
    from tokenizers.processors import TemplateProcessing

    pair = f"{token} $A {token} $B:1 {token}:1"
    return TemplateProcessing(single=f"{token} $A {token}", pair=pair, special_tokens=[(token, number)])


def _damaged(why: str) -> InputError:
    return InputError(f"prepared data is damaged: {why}; run etude prepare RECIPE --again")

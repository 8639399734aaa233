"""From documents to token ids, and what is noted of each document on the way."""

import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.lexer import code_of
from etude.data.render import ChatTemplate
from etude.data.sources import Document, read_documents
from etude.data.split import Flags, Ints, connect, hash_words, number_texts
from etude.data.tokenize import Tokenizer, any_of
from etude.data.turns import SAID_BESIDE, count_unlearnt, is_unlearnt, list_fields, name_unread
from etude.errors import InputError
from etude.recipe.schema import Source

NAMED_ROWS = 10
_NAMED_COLUMNS, _NAMED_TOKENS = 50, 3
# A token takes up to 300 bytes of memory while its text is read, and a byte of text may be one.
_BATCH_BYTES = _LONGEST_STRETCH = 3 << 19
_PIECE_CHARACTERS = 1 << 17
_CONVERSATION_CHARACTERS = 1 << 18  # less, as where each token starts takes memory
_BORDERS = (re.compile(r"\S\r?\n(?=\S)"), re.compile(r"\S(?= \w)"))
_BORDER_TRIES, _BORDER_WINDOW = 8, 200


@dataclass
class Tally:
    """What is known of the documents read so far; a few dozen bytes each."""

    hashes: bytearray = field(default_factory=bytearray)
    prompts: bytearray = field(default_factory=bytearray)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    sources: "array[int]" = field(default_factory=lambda: array("q"))
    groups: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q", [0]))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    capabilities: "array[int]" = field(default_factory=lambda: array("q"))
    answers: "array[int]" = field(default_factory=lambda: array("q"))
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    label_values: dict[str, int] = field(default_factory=dict)
    seconds: "array[int]" = field(default_factory=lambda: array("q"))
    code: bytearray = field(default_factory=bytearray)
    cuts: bytearray = field(default_factory=bytearray)
    paths: dict[str, int] = field(default_factory=dict)
    capability_names: dict[str, int] = field(default_factory=dict)
    found: list[int] = field(default_factory=list)
    blanks: list[int] = field(default_factory=list)
    blank_rows: list[list[str]] = field(default_factory=list)
    unknown: int = 0
    lost: int = 0
    special: int = 0
    holding_special: "array[int]" = field(default_factory=lambda: array("q"))
    special_tokens: dict[str, None] = field(default_factory=dict)
    unread: list[dict[str, int]] = field(default_factory=list)
    no_values: list[dict[str, int]] = field(default_factory=list)
    parted: int = 0
    no_bos: int = 0
    mapped: int = 0
    changed: int = 0
    unlearnt: int = 0
    ends: set[int] = field(default_factory=set)
    within: set[int] = field(default_factory=set)
    _names: dict[str, int] = field(default_factory=dict)

    def read(self, sources: list[Source], *, undecodable: bool, removed: Flags | None) -> Iterator[Document]:
        """The documents with text, each noted down before it is handed on.

        undecodable: as for `read_documents`. removed: (n,) which of the documents with text the data gate
        leaves out.
        """
        place = itertools.count()
        for index, source in enumerate(sources):
            self.found.append(0)
            self.blanks.append(0)
            self.blank_rows.append([])
            self.unread.append({})
            self.no_values.append({})
            for document in read_documents(source, undecodable=undecodable):
                self.found[-1] += 1
                _count(self.unread[-1], document.unread)
                _count(self.no_values[-1], document.no_values)
                if document.blank:
                    if not document.is_undecodable:
                        self.blanks[-1] += 1
                        if len(self.blank_rows[-1]) < NAMED_ROWS:
                            self.blank_rows[-1].append(document.name)
                    continue
                if removed is not None and (at := next(place)) >= len(removed):
                    raise InputError(
                        f"the data gate has looked at {len(removed):,} documents and there are more; "
                        "run etude prepare RECIPE --again"
                    )
                if removed is not None and removed[at]:
                    continue
                check_stretches(document.content, document.name)
                data = document.content.encode()
                self.hashes += hashlib.sha256(data).digest()[:16]
                self.prompts += hash_words(document.prompt)
                self.sizes.append(len(data))
                self.sources.append(index)
                # A document without a group gets a number below all groups, of its own.
                group = document.group
                alone = -len(self.sizes)
                self.groups.append(
                    alone if group is None else self._names.setdefault(group, len(self._names))
                )
                self.places.extend((self.paths.setdefault(document.path, len(self.paths)), document.line))
                names, capability = self.capability_names, document.capability
                self.capabilities.append(
                    -1 if capability is None else names.setdefault(capability, len(names))
                )
                if document.label is not None:
                    spelled = json.dumps(document.label)
                    self.labels.append(self.label_values.setdefault(spelled, len(self.label_values)))
                yield document

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The small files of the prepared data, without token_bytes and those of examples."""
        hashes, asked = (
            np.frombuffer(each, dtype=np.uint8).reshape(-1, 16) for each in (self.hashes, self.prompts)
        )
        prompts = number_texts(asked)
        groups = np.unique(np.array(self.groups, dtype=np.int64), return_inverse=True)[1]
        columns = {"offsets": self.offsets, "sizes": self.sizes, "sources": self.sources}
        plain = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
        # What most rows ask is no question but a form, and would leave nothing to hold out.
        is_form = 2 * np.bincount(prompts, minlength=1)[prompts] > len(prompts)
        asked_once = np.where(is_form, len(prompts) + np.arange(len(prompts)), prompts)
        units = connect(groups, number_texts(hashes), asked_once)
        return {"hashes": hashes, "prompts": prompts, "units": units, **plain}

    def shared_groups(self, uses: Ints) -> list[str]:
        """The groups with documents of several uses, (n,) of each document; of those below 0 it does not
        matter.
        """
        groups = np.array(self.groups, dtype=np.int64)
        pairs = np.unique(np.stack([groups, uses])[:, (groups >= 0) & (uses >= 0)], axis=1)
        numbers, counts = np.unique(pairs[0], return_counts=True)
        names = list(self._names)
        return [names[number] for number in numbers[counts > 1].tolist()]

    def add(
        self,
        length: int,
        answers: Sequence[tuple[int, int]],
        *,
        has_special: bool = False,
        unread: Collection[str] = (),
    ) -> None:
        """Note how many ids a document has, and where among them what is to be learnt begins and ends.

        has_special: the text of a special token is in the document, and was read as text. unread: fields of
        its messages that nothing writes.
        """
        if has_special:
            self.holding_special.append(len(self.offsets) - 1)
        if unread:
            _count(self.unread[self.sources[len(self.offsets) - 1]], map(name_unread, unread))
        start = self.offsets[-1]
        self.offsets.append(start + length)
        for begin, end in answers:
            self.answers.extend((start + begin, start + end))

    def end_ids(self, eos_id: int) -> list[int]:
        """The ids that end an answer: that of a text, and each by which an answer in a conversation ends.

        A token that also stands within answers, as between thoughts and what is said, ends none.
        """
        return list(dict.fromkeys([eos_id, *sorted((self.ends - self.within) or self.ends)]))

    def count_lost(self, documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[Document]:
        """The same documents, each with the bytes of its text counted that no token stands for."""
        for document in documents:
            texts = [document.text, document.pair or ""]
            if document.messages is not None:
                texts = [message["content"] for message in document.messages]
            self.lost += sum(map(tokenizer.count_lost, texts))
            yield document

    def find_special(self, texts: Iterable[str], tokenizer: Tokenizer) -> bool:
        """Whether texts hold that of a special token, which is read as text; some of them are kept for a
        note.
        """
        found = (any_of(tokenizer.special_tokens).search(text) for text in texts)
        if match := next((each for each in found if each is not None), None):
            if len(self.special_tokens) < _NAMED_TOKENS:
                self.special_tokens[match[0]] = None
            return True
        return False

    def example_arrays(self) -> dict[str, Ints]:
        pairs = {"answers": self.answers, "places": self.places}
        return {
            **{name: np.array(column, dtype=np.int64).reshape(-1, 2) for name, column in pairs.items()},
            "capabilities": np.array(self.capabilities, dtype=np.int64),
        }


def _count(counts: dict[str, int], names: Iterable[str]) -> None:
    """Count the rows in which a column is unread, of the first columns only, as there may be any number."""
    for name in names:
        if name in counts or len(counts) < _NAMED_COLUMNS:
            counts[name] = counts.get(name, 0) + 1


def encode_labelled(
    documents: Iterator[Document],
    tally: Tally,
    tokenizer: Tokenizer,
    longest: int,
    *,
    with_code: bool = False,
) -> Iterator[Ints]:
    """The ids of texts, or of pairs of them, as the tokenizer joins them for a model, cut to `longest`
    tokens.

    with_code: note what each token is as code, too; 8 bytes each.
    """
    for batch in _batches(documents):
        texts = [(document.text, document.pair) for document in batch]
        encoded = tokenizer.encode_joined(texts, longest, with_spans=with_code)
        for (text, pair), (ids, second, is_cut, spans) in zip(texts, encoded):
            given = [text] if pair is None else [text, pair]
            if spans is not None:
                tally.code += code_of(given, spans).astype("<u2").tobytes()
            tally.add(len(ids), [], has_special=tally.find_special(given, tokenizer))
            tally.seconds.append(second)
            tally.cuts.append(is_cut)
            tally.unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
        yield np.concatenate([ids for ids, *_ in encoded])


def encode_pairs(documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer) -> Iterator[Ints]:
    """The ids of sources, and after each those of its target, as the tokenizer surrounds both, whole.

    A target does not begin with the end token, as nothing would be written then.
    """
    for batch in _batches(documents):
        pairs = [take_sides(document) for document in batch]
        sources, targets = (
            [each[0] for each in tokenizer.encode_joined([(pair[side], None) for pair in pairs])]
            for side in (0, 1)
        )
        targets = [ids[1:] if ids[0] == tokenizer.eos_id else ids for ids in targets]
        for document, source, target, pair in zip(batch, sources, targets, pairs):
            unread = dict.fromkeys(name for each in document.messages or () for name in list_fields(each))
            has_special = tally.find_special(pair, tokenizer)
            tally.add(len(source) + len(target), [], has_special=has_special, unread=unread)
            tally.seconds.append(len(source))
            if tokenizer.unk_id is not None:
                tally.unknown += int((source == tokenizer.unk_id).sum() + (target == tokenizer.unk_id).sum())
        yield np.concatenate([ids for pair in zip(sources, targets) for ids in pair])


def take_sides(document: Document) -> tuple[str, str]:
    """Source and target of a document: of a conversation what comes before the last answer, and that.

    Raises: InputError if it has no target.
    """
    if document.pair is not None:
        return document.text, document.pair
    if document.messages is not None and is_unlearnt(document.messages[-1]):
        raise InputError(f"{document.name} marks its last answer as not to be learnt; leave the row out")
    if document.messages is None or document.messages[-1]["role"] != "assistant":
        raise InputError(
            f'{document.name} has no target; name the JSONL field that holds it, as target = "target"'
        )
    for number, message in enumerate(document.messages, 1):
        if beside := [name for name in list_fields(message) if name in SAID_BESIDE]:
            raise InputError(
                f"{document.name} has {beside[0]!r} in message {number}, which an encoder-decoder does not "
                "read; put it into the content, or remove it"
            )
    before = [message["content"] for message in document.messages[:-1]]
    return "\n\n".join(before), document.messages[-1]["content"]


def encode(
    documents: Iterator[Document],
    tally: Tally,
    tokenizer: Tokenizer,
    *,
    are_examples: bool,
    system: str | None,
    today: str | None = None,
) -> Iterator[Ints]:
    """The ids of documents that `tally` reads, in pieces of a few MB of text, whatever the length of a
    document.
    """
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, system=system, today=today)
    try:
        for is_text, group in itertools.groupby(documents, key=lambda document: document.messages is None):
            if is_text:
                encoded = _encode_texts(tally, group, tokenizer, are_examples)
            else:
                encoded = _encode_conversations(tally, group, tokenizer, chat)
            for ids in encoded:
                assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size, "an id beyond the vocabulary"
                yield ids
    finally:
        chat.close()


def _encode_texts(
    tally: Tally, documents: Iterator[Document], tokenizer: Tokenizer, are_examples: bool
) -> Iterator[Ints]:
    """Each text and the end token; an example also begins as the tokenizer begins a text."""
    pieces: list[str] = []
    ends: list[bool] = []
    special: list[bool] = []  # of the documents that end
    waiting = 0
    eos = np.array([tokenizer.eos_id])
    opening = [] if not are_examples or tokenizer.bos_id is None else [np.array([tokenizer.bos_id])]
    is_first, length = True, 0  # of a document, whose pieces may come in several batches

    def flush() -> Ints:
        nonlocal is_first, length
        parts: list[Ints] = []
        for ids, end in zip(tokenizer.encode_batch(pieces), ends):
            new = [*(opening if is_first else []), ids, *([eos] if end else [])]
            parts += new
            tally.unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
            length += sum(map(len, new))
            if end:
                tally.add(length, [(0, length)] if are_examples else [], has_special=special.pop(0))
                length = 0
            is_first = end
        return np.concatenate(parts)

    for document in documents:
        special.append(tally.find_special([document.text], tokenizer))
        for piece, end in cut_text(document.text, tokenizer, name=document.name):
            size = len(piece.encode())
            if pieces and waiting + size > _BATCH_BYTES:
                yield flush()
                pieces, ends, waiting = [], [], 0
            pieces.append(piece)
            ends.append(end)
            waiting += size
    if pieces:
        yield flush()


def _encode_conversations(
    tally: Tally, documents: Iterator[Document], tokenizer: Tokenizer, chat: ChatTemplate
) -> Iterator[Ints]:
    specials = frozenset(tokenizer.special_ids)
    for batch in _batches(documents):
        conversations = [document.messages or [] for document in batch]
        encoded = chat.encode(conversations, [document.name for document in batch])
        tally.unlearnt += sum(map(count_unlearnt, conversations))
        for each in encoded:
            tally.add(len(each.ids), each.answers, has_special=each.has_special, unread=each.unread)
            tally.mapped += each.is_mapped
            tally.changed += each.is_changed
            tally.ends |= {each.ids[end - 1] for _, end in each.answers}
            tally.within.update(
                *(specials.intersection(each.ids[begin : end - 1]) for begin, end in each.answers)
            )
            tally.special += each.has_special
            tally.parted += each.is_parted
            tally.no_bos += each.ids[0] != tokenizer.bos_id
            tally.unknown += 0 if tokenizer.unk_id is None else each.ids.count(tokenizer.unk_id)
        yield np.array(list(itertools.chain.from_iterable(each.ids for each in encoded)), dtype=np.int64)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.content)
        if characters >= _CONVERSATION_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def cut_text(
    text: str, tokenizer: Tokenizer, piece_characters: int = _PIECE_CHARACTERS, *, name: str = "a text"
) -> Iterator[tuple[str, bool]]:
    """A text in pieces whose ids, end to end, are those of the whole; each with whether it is the last.

    A cut lies after a line end or before a word, where tokenizers that split words have a border; whether
    this one has is tried on the text around it.

    Raises: InputError if there is none in a stretch of 1.5 MiB.
    """
    start, sought = 0, 0
    while len(text) - start > piece_characters:
        window = (text, max(start + piece_characters // 2, sought), max(start, sought) + piece_characters)
        matches = (
            match
            for border in _BORDERS
            for match in itertools.islice(border.finditer(*window), _BORDER_TRIES)
        )
        cut = next((match.end() for match in matches if _is_border(text, match.end(), tokenizer)), None)
        if cut is not None:
            yield text[start:cut], False
            start, sought = cut, 0
            continue
        sought = window[2]
        if sought >= len(text):
            break
        if len(text[start:sought].encode()) > _LONGEST_STRETCH:
            raise _no_border(name)
    yield text[start:], True


def check_stretches(text: str, name: str) -> None:
    """Raises: InputError for a text of which a part without white space takes too much memory as one word."""
    is_long = 4 * len(text) > _LONGEST_STRETCH and len(text.encode()) > _LONGEST_STRETCH
    if is_long and any(len(word.encode()) > _LONGEST_STRETCH for word in text.split()):
        raise _no_border(name)


def _no_border(name: str) -> InputError:
    return InputError(
        f"{name} has over {_LONGEST_STRETCH:,} bytes in a stretch without a place to cut it, such as a space "
        'before a word; break it up, or leave it out with data.clean.minified = "drop"'
    )


def _is_border(text: str, place: int, tokenizer: Tokenizer) -> bool:
    left, right = text[place - _BORDER_WINDOW : place], text[place : place + _BORDER_WINDOW]
    whole, first, second = tokenizer.encode_batch([left + right, left, right])
    return np.array_equal(whole, np.concatenate([first, second]))

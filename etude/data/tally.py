"""Notes on the documents read so far, from which the columns of prepared data are made."""

import hashlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.pieces import check_stretches
from etude.data.samples.sample import Flags, Ints
from etude.data.sources import Document, read_documents
from etude.data.split import connect, hash_words, number_texts
from etude.data.tokenize import Tokenizer, any_of
from etude.data.turns import name_unread
from etude.errors import InputError
from etude.recipe.data import Source

NAMED_ROWS = 10
_NAMED_COLUMNS, _NAMED_TOKENS = 50, 3
_OF_CONVERSATIONS = (
    "special_tokens_read_as_text", "answers_apart_from_prompts", "without_bos", "answers_marked_not_to_learn",
    "developer_read_as_system", "content_changed_by_template",
)  # fmt: skip


@dataclass
class SourceNotes:
    """Notes on the documents of one source; columns by their rows."""

    found: int = 0
    blank: int = 0
    blank_rows: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    no_values: dict[str, int] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        """Note a document; of those without text only the first have a name."""
        self.found += 1
        _count(self.unread, document.unread)
        _count(self.no_values, document.no_values)
        if document.blank and not document.is_undecodable:
            self.blank += 1
            if len(self.blank_rows) < NAMED_ROWS:
                self.blank_rows.append(document.name)


def _numbers() -> "array[int]":
    return array("q")


@dataclass
class Tally:
    """Notes on all documents read so far; a few dozen bytes each.

    conversations: rows by what became of them, as the manifest names it; of answers not to learn, turns.
    """

    hashes: bytearray = field(default_factory=bytearray)
    prompts: bytearray = field(default_factory=bytearray)
    sizes: "array[int]" = field(default_factory=_numbers)
    sources: "array[int]" = field(default_factory=_numbers)
    groups: "array[int]" = field(default_factory=_numbers)
    offsets: "array[int]" = field(default_factory=lambda: array("q", [0]))
    places: "array[int]" = field(default_factory=_numbers)
    capabilities: "array[int]" = field(default_factory=_numbers)
    answers: "array[int]" = field(default_factory=_numbers)
    labels: "array[int]" = field(default_factory=_numbers)
    label_values: dict[str, int] = field(default_factory=dict)
    seconds: "array[int]" = field(default_factory=_numbers)
    code: bytearray = field(default_factory=bytearray)
    cuts: bytearray = field(default_factory=bytearray)
    paths: dict[str, int] = field(default_factory=dict)
    capability_names: dict[str, int] = field(default_factory=dict)
    group_names: dict[str, int] = field(default_factory=dict)
    notes: list[SourceNotes] = field(default_factory=list)
    unknown: int = 0
    lost: int = 0
    holding_special: "array[int]" = field(default_factory=_numbers)
    special_tokens: dict[str, None] = field(default_factory=dict)
    conversations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OF_CONVERSATIONS, 0))
    ends: set[int] = field(default_factory=set)
    within: set[int] = field(default_factory=set)

    def read(self, sources: list[Source], *, undecodable: bool, removed: Flags | None) -> Iterator[Document]:
        """The documents with text, each noted down before it is handed on.

        undecodable: as for `read_documents`. removed: (n,) true for those that the data gate leaves out.
        """
        place = itertools.count()
        for index, source in enumerate(sources):
            self.notes.append(SourceNotes())
            for document in read_documents(source, undecodable=undecodable):
                self.notes[-1].add(document)
                if document.blank:
                    continue
                if removed is not None and (at := next(place)) >= len(removed):
                    raise InputError(
                        f"the data gate has looked at {len(removed):,} documents and there are more; "
                        "run etude prepare RECIPE --again"
                    )
                if removed is None or not removed[at]:
                    self._note(document, index)
                    yield document

    def _note(self, document: Document, source: int) -> None:
        check_stretches(document.content, document.name)
        data = document.content.encode()
        self.hashes += hashlib.sha256(data).digest()[:16]
        self.prompts += hash_words(document.prompt)
        self.sizes.append(len(data))
        self.sources.append(source)
        # A document without a group gets a number below all groups, of its own.
        alone = -len(self.sizes)
        self.groups.append(alone if document.group is None else _number(self.group_names, document.group))
        self.places.extend((_number(self.paths, document.path), document.line))
        capability = document.capability
        self.capabilities.append(-1 if capability is None else _number(self.capability_names, capability))
        if document.label is not None:
            self.labels.append(_number(self.label_values, json.dumps(document.label)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The small files of the prepared data, without token_bytes and those of examples."""
        hashes = np.frombuffer(self.hashes, dtype=np.uint8).reshape(-1, 16)
        prompts = number_texts(np.frombuffer(self.prompts, dtype=np.uint8).reshape(-1, 16))
        groups = np.unique(np.array(self.groups, dtype=np.int64), return_inverse=True)[1]
        columns = {"offsets": self.offsets, "sizes": self.sizes, "sources": self.sources}
        plain = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
        # What most rows ask is no question but a form, and would leave nothing to hold out.
        is_form = 2 * np.bincount(prompts, minlength=1)[prompts] > len(prompts)
        asked_once = np.where(is_form, len(prompts) + np.arange(len(prompts)), prompts)
        units = connect(groups, number_texts(hashes), asked_once)
        return {"hashes": hashes, "prompts": prompts, "units": units, **plain}

    def shared_groups(self, uses: Ints) -> list[str]:
        """The groups with documents of several uses, (n,) of each document; uses below 0 do not count."""
        groups = np.array(self.groups, dtype=np.int64)
        pairs = np.unique(np.stack([groups, uses])[:, (groups >= 0) & (uses >= 0)], axis=1)
        numbers, counts = np.unique(pairs[0], return_counts=True)
        names = list(self.group_names)
        return [names[number] for number in numbers[counts > 1].tolist()]

    def add(
        self,
        length: int,
        answers: Sequence[tuple[int, int]],
        *,
        has_special: bool,
        unread: Iterable[str] = (),
    ) -> None:
        """Note the number of ids of a document, and the places of what is to be learnt among them.

        has_special: the text of a special token was read as text. unread: fields of messages that nothing
        writes.
        """
        if has_special:
            self.holding_special.append(len(self.offsets) - 1)
        _count(self.notes[self.sources[len(self.offsets) - 1]].unread, map(name_unread, unread))
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
        """Find special tokens in texts, which are read as text; the first few are kept for a note."""
        match = next(filter(None, map(any_of(tokenizer.special_tokens).search, texts)), None)
        if match and len(self.special_tokens) < _NAMED_TOKENS:
            self.special_tokens[match[0]] = None
        return match is not None

    def example_arrays(self) -> dict[str, Ints]:
        """Answers, places and capabilities, which all shapes but texts have."""
        pairs = {"answers": self.answers, "places": self.places}
        return {
            **{name: np.array(column, dtype=np.int64).reshape(-1, 2) for name, column in pairs.items()},
            "capabilities": np.array(self.capabilities, dtype=np.int64),
        }


def _number(numbers: dict[str, int], name: str) -> int:
    """The number of a name, the next one if it is new."""
    return numbers.setdefault(name, len(numbers))


def _count(counts: dict[str, int], names: Iterable[str]) -> None:
    """Count the rows in which a column is unread, of the first columns only, as there may be any number."""
    for name in names:
        if name in counts or len(counts) < _NAMED_COLUMNS:
            counts[name] = counts.get(name, 0) + 1

"""Notes on the documents read so far, from which the columns of prepared data are made."""

import hashlib
import itertools
import json
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
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
from etude.recipe.schema import Source

NAMED_ROWS = 10
_NAMED_COLUMNS, _NAMED_TOKENS = 50, 3


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

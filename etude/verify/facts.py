"""The named quantities of a document, each tied to what it is of: a row, a column, a sentence, a section."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from etude.verify.quantities import Figure
from etude.verify.reading import Block, Document

_COMPARED = re.compile(
    r"\bv\d\b|\bversion\b|\brun \w+\b|\bphase\b|\bstage\b|\btrial\b|\battempt\b|\bexperiment\b"
    r"|\bbefore\b|\bafter\b|\btraining \d|\bbaseline\b|\bmodel [a-z0-9]\b|\bsmall\b|\bmedium\b|\blarge\b"
    r"|\bpre-?training\b|\bfine-?tuning\b|\bsft\b|\btier\b|\bday \d|\bweek \d|\bnext\b"
    r"|\bplan(?:ned)?\b|\bfuture\b|\bprevious\b|\brecommend|\bround \d|\bsession \d|\battempt"
    r"|\bwarm-?up\b|\bstep \d", re.I,
)  # fmt: skip


_APART = (
    "from",
    "delta",
    "operand",
    "mark",
)  # roles of figures that are no value of their quantity beside others
_SPEEDS, _STEADY = ("tokens_per_second", "samples_per_second", "steps_per_second"), 1.1
_MOST_KEPT = 6  # three values, twice each
_MOST_VALUES = 40  # of a name, that another figure is tried with
_MANY = 1_500  # figures of a document of many trainings, such as a diary


@dataclass(frozen=True, eq=False)
class Fact:
    """A figure with its name, its place, and what it is of.

    scope   from the document down: sections, block, row or sentence
    role    "plain", "from" or "to" (of a change), "delta" (the change), "operand" (of a product beside it),
            "mark" (a place on the way), "other" (a plan, another time)
    label   the words that it was named by
    subject the column or row of a table that it is of, if several stand side by side
    """

    name: str
    figure: Figure
    line: int
    scope: tuple[str, ...]
    role: str = "plain"
    label: str = ""
    subject: str = ""

    @property
    def value(self) -> float:
        """The value of its figure."""
        return self.figure.value

    @property
    def is_value(self) -> bool:
        """True unless it is a change, the start of one, or a factor of a product."""
        return self.role not in _APART


@dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence, a line of a list, or a heading with its figures."""

    text: str
    line: int
    scope: tuple[str, ...]
    figures: tuple[Figure, ...]
    block: Block
    at: int

    def line_of(self, figure: Figure) -> int:
        """The line of the file that a figure of it stands on."""
        return self.block.line_at(self.at + figure.start)


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell of a table: its text and its first figure."""

    text: str
    figure: Figure | None
    line: int


@dataclass(frozen=True, eq=False)
class Table:
    """A table by cells, with the quantities that its columns or its rows are.

    names     the name of each column, None where it has none; of a table of settings, of each row
    by_row    true if each row is one thing with several quantities, false if each row is one quantity
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    scope: tuple[str, ...]
    names: tuple[str | None, ...]
    by_row: bool
    line: int


@dataclass
class Facts:
    """Everything that the rules look at."""

    document: Document
    sentences: list[Sentence] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    figures: int = 0
    unread_figures: int = 0
    has_blanks: bool = False
    chosen: dict[tuple[int, tuple[str, ...]], list[Any]] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, list[Fact]]:
        """The facts by the name of their quantity."""
        found: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            found[fact.name].append(fact)
        return found

    @cached_property
    def text(self) -> str:
        """The prose of the document in lower case, at most a million characters of it."""
        return "\n".join(sentence.text for sentence in self.sentences)[:1_000_000].lower()

    @cached_property
    def raw(self) -> str:
        """The lines of the document as they stand, in lower case, at most a million characters of them."""
        return "\n".join(self.document.lines)[:1_000_000].lower()

    @cached_property
    def keeps_last(self) -> bool:
        """True if the document says that the last, partial batch of an epoch is a step too."""
        kept = (
            r"drop_last\W{1,4}false|\blast,? (?:one|batch|smaller|partial|step)\b|\bpartial (?:one|batch)\b"
        )
        return re.search(kept, self.raw) is not None

    @cached_property
    def says_tied(self) -> bool | None:
        """True or false where the document says if input and output embeddings are one, else None."""
        if re.search(r"tie\w*embeddings?\W{1,4}false|\b(?:not|un)[ -]?tied", self.raw):
            return False
        found = re.search(r"tie\w*embeddings?\W{1,4}true|\btied\b|\bties\b|weight tying", self.raw)
        return True if found else None

    def says(self, pattern: str) -> re.Match[str] | None:
        """The first place of the prose that fits a pattern, searched once for each pattern."""
        if pattern not in self._said:
            self._said[pattern] = re.search(pattern, self.text)
        return self._said[pattern]

    def named(self, *names: str, roles: Sequence[str] = ("plain",)) -> list[Fact]:
        """The usable facts of some names, in the order of the document."""
        key = (names, tuple(roles))
        if key not in self._named:
            found = [fact for name in names for fact in self.by_name.get(name, ()) if fact.figure.is_usable]
            kept = sorted((fact for fact in found if fact.role in roles), key=lambda fact: fact.line)
            self._named[key] = kept
        return self._named[key]

    def beside(self, fact: Fact, name: str) -> list[Fact]:
        """The usable facts of a name in the same row, column or sentence."""
        return [each for each in self._by_scope.get((name, fact.scope), ()) if each is not fact]

    def sentence_of(self, fact: Fact) -> Sentence | None:
        """The sentence that a fact stands in, None of a fact of a table."""
        return self._by_place.get(fact.scope)

    def words_before(self, fact: Fact, most: int = 30) -> str:
        """The words before a figure in its sentence."""
        sentence, start = self.sentence_of(fact), fact.figure.start
        return sentence.text[max(0, start - most) : start] if sentence else ""

    def words_after(self, fact: Fact, most: int = 45) -> str:
        """The words behind a figure in its sentence."""
        sentence, end = self.sentence_of(fact), fact.figure.end
        return sentence.text[end : end + most] if sentence else ""

    def near(self, fact: Fact, *names: str) -> Fact | None:
        """The one fact of these names that belongs to another; None if there is none, or if several differ.

        One in the same row, column or sentence comes first, then one of its section, then of the document,
        if there is but one value of it. Sections that stand side by side as versions, phases or models do
        not share facts.
        """
        own = [each for name in names for each in self.beside(fact, name) if each.is_value]
        if own:
            return _only(own)
        most, best = self._closest(fact, names)
        # Two sentences of a paragraph may speak of two runs: they are tied where all has one value only.
        is_prose = most > _depth(fact.scope) and not fact.scope[-1].startswith(("row", "column"))
        is_close = most > self.common and not is_prose
        if not is_close:
            best = self._under(fact, names, ()) if self.figures < _MANY else []
        chosen = _only(best)
        return None if chosen is None or _are_apart(fact.scope, chosen.scope, most) else chosen

    def shortly_before(self, fact: Fact, names: Sequence[str], most: int) -> list[Fact]:
        """The values of these names in the sentences right before a fact's own, the nearest first."""
        at = self._places.get(fact.scope)
        if at is None:
            return []
        found = []
        for one in reversed(self.before(self.sentences[at], most)):
            found += [each for name in names for each in self._by_scope.get((name, one.scope), ())]
        return [each for each in found if each.is_value]

    def before(self, sentence: Sentence, most: int) -> list[Sentence]:
        """The sentences under the same headings that stand right before one, at most so many."""
        at, depth = self._places.get(sentence.scope, 0), _depth(sentence.scope)
        return [
            each
            for each in self.sentences[max(0, at - most) : at]
            if each.scope[:depth] == sentence.scope[:depth]
        ]

    def typical(self, name: str) -> Fact | None:
        """The middle value of a speed that the rows of a log have, if they hardly differ."""
        if name not in self._typical:
            rows = [each for each in self.by_name.get(name, ()) if each.role == "other" and each.value > 0]
            rows = sorted(rows if name in _SPEEDS else (), key=lambda each: each.value)
            is_steady = len(rows) >= 3 and rows[-1].value <= _STEADY * rows[0].value
            self._typical[name] = rows[len(rows) // 2] if is_steady else None
        return self._typical[name]

    @cached_property
    def _typical(self) -> dict[str, Fact | None]:
        return {}

    def name_of_change(self, figure: Figure) -> str:
        """The quantity that a figure is a change of, "" if it is none."""
        return self._changes.get(id(figure), "")

    @cached_property
    def _changes(self) -> dict[int, str]:
        return {id(fact.figure): fact.name for fact in self.facts if fact.role == "delta"}

    def anywhere(self, fact: Fact, name: str) -> list[Fact]:
        """The values of a name in the document, one fact of each, at most a few."""
        return [each for each in self._values.get(name, ()) if each is not fact]

    @cached_property
    def _values(self) -> dict[str, list[Fact]]:
        found: dict[str, dict[float, Fact]] = defaultdict(dict)
        for fact in self.facts:
            is_open = fact.role in ("plain", "to") or (fact.is_value and fact.scope in self._places)
            if is_open and fact.figure.is_usable and len(found[fact.name]) < _MOST_VALUES:
                found[fact.name].setdefault(fact.value, fact)
        return {name: list(values.values()) for name, values in found.items()}

    @cached_property
    def _places(self) -> dict[tuple[str, ...], int]:
        return {sentence.scope: at for at, sentence in enumerate(self.sentences)}

    def _closest(self, fact: Fact, names: Sequence[str]) -> tuple[int, list[Fact]]:
        """(the length of the longest part of a place that settings of these names share, those settings)."""
        for length in range(len(fact.scope), 0, -1):
            if found := self._under(fact, names, fact.scope[:length]):
                return length, found
        return 0, self._under(fact, names, ())

    def _under(self, fact: Fact, names: Sequence[str], part: tuple[str, ...]) -> list[Fact]:
        found = [each for name in names for each in self._by_part.get((name, part), ())]
        return [each for each in found if each is not fact]

    @cached_property
    def _said(self) -> dict[str, re.Match[str] | None]:
        return {}

    @cached_property
    def _named(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], list[Fact]]:
        return {}

    @cached_property
    def _by_place(self) -> dict[tuple[str, ...], Sentence]:
        return {sentence.scope: sentence for sentence in reversed(self.sentences)}

    @cached_property
    def _by_scope(self) -> dict[tuple[str, tuple[str, ...]], list[Fact]]:
        found: dict[tuple[str, tuple[str, ...]], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            if fact.figure.is_usable:
                found[fact.name, fact.scope].append(fact)
        return found

    @cached_property
    def _by_part(self) -> dict[tuple[str, tuple[str, ...]], list[Fact]]:
        """The settings of a name by each part of their places; of many, what tells that they differ."""
        found: dict[tuple[str, tuple[str, ...]], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            if fact.role != "plain" or not fact.figure.is_usable:
                continue
            for length in range(len(fact.scope) + 1):
                kept = found[fact.name, fact.scope[:length]]
                if sum(each.value == fact.value for each in kept) < 2 and len(kept) < _MOST_KEPT:
                    kept.append(fact)
        return found

    @cached_property
    def common(self) -> int:
        """The number of headings that all facts stand under."""
        scopes = [fact.scope for fact in self.facts]
        return min((_shared(scopes[0], scope) for scope in scopes), default=0)


def _only(found: Sequence[Fact]) -> Fact | None:
    """One of several facts if all have one value."""
    return found[0] if found and len({each.value for each in found}) == 1 else None


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for left, right in zip(first, second):
        if left != right:
            break
        count += 1
    return count


def _depth(scope: Iterable[str]) -> int:
    return sum(part.startswith("# ") for part in scope)


def _are_apart(first: Sequence[str], second: Sequence[str], shared: int) -> bool:
    """True if two places part at headings that tell versions, phases or models from each other."""
    titles = [scope[shared] for scope in (first, second) if shared < len(scope)]
    return any(title.startswith("# ") and _COMPARED.search(title) for title in titles)

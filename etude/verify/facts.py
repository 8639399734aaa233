"""The named quantities of a document, each tied to what it is of: a row, a column, a sentence, a section."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from etude.verify.quantities import Figure
from etude.verify.reading import Block, Document

_COMPARED = re.compile(
    r"\bv\d\b|\bversion\b|\brun \w+\b|\bphase\b|\bstage\b|\btrial\b|\battempt\b|\bexperiment\b"
    r"|\bbefore\b|\bafter\b|\btraining \d|\bbaseline\b|\bmodel [a-z0-9]\b|\bsmall\b|\bmedium\b|\blarge\b"
    r"|\bpre-?training\b|\bfine-?tuning\b|\bsft\b|\btier\b|\bday \d|\bweek \d|\bnext\b"
    r"|\bplan(?:ned)?\b|\bfuture\b|\bprevious\b|\brecommend|\bround \d|\bsession \d|\battempt"
    r"|\bwarm-?up\b|\bstep \d", re.I,
)  # fmt: skip


_MANY = 1_500  # figures of a document of many trainings, such as a diary


@dataclass(frozen=True, eq=False)
class Fact:
    """A figure with its name, its place, and what it is of.

    scope   from the document down: sections, block, row or sentence
    role    "plain", "from" or "to" (of a change), "other" (a plan, a mark, another time)
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

    def named(self, *names: str, roles: Sequence[str] = ("plain",)) -> list[Fact]:
        """The usable facts of some names, in the order of the document."""
        found = [fact for name in names for fact in self.by_name.get(name, ()) if fact.figure.is_usable]
        return sorted((fact for fact in found if fact.role in roles), key=lambda fact: fact.line)

    def near(self, fact: Fact, *names: str) -> Fact | None:
        """The one fact of these names that belongs to another; None if there is none, or if several differ.

        One in the same row, column or sentence comes first, then one of its section, then of the document,
        if there is but one value of it. Sections that stand side by side as versions, phases or models do
        not share facts.
        """
        usable = [each for name in names for each in self.by_name.get(name, ()) if each.figure.is_usable]
        own = [
            each for each in usable if each.scope == fact.scope and each is not fact and each.role != "from"
        ]
        if own:
            return _only(own)
        plain = [each for each in usable if each.role == "plain" and each is not fact]
        shared = {each: _shared(fact.scope, each.scope) for each in plain}
        most = max(shared.values(), default=0)
        best = [each for each in plain if shared[each] == most]
        # Two sentences of a paragraph may speak of two runs: they are tied where all has one value only.
        is_prose = most > _depth(fact.scope) and not fact.scope[-1].startswith(("row", "column"))
        is_close = most > self.common and not is_prose
        chosen = _only(best) if is_close else _only(plain) if self.figures < _MANY else None
        return None if chosen is None or _are_apart(fact.scope, chosen.scope, most) else chosen

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

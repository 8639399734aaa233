"""A document held against all rules, and the count of what none of them examined."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.verify.facts import Facts
from etude.verify.find import find_facts
from etude.verify.reading import Document, read_document
from etude.verify.rules.arithmetic import check_arithmetic
from etude.verify.rules.budget import check_budget
from etude.verify.rules.bytes import check_bytes
from etude.verify.rules.claims import check_claims
from etude.verify.rules.classification import check_classification
from etude.verify.rules.code import check_code
from etude.verify.rules.counting import check_counting
from etude.verify.rules.dates import check_dates
from etude.verify.rules.differences import check_differences
from etude.verify.rules.encoding import check_encoding
from etude.verify.rules.formulas import check_formulas
from etude.verify.rules.grids import check_grids
from etude.verify.rules.hardware import check_hardware
from etude.verify.rules.losses import check_losses
from etude.verify.rules.relations import check_relations
from etude.verify.rules.repeats import check_repeats
from etude.verify.rules.schedule import check_schedule
from etude.verify.rules.selection import check_selection
from etude.verify.rules.sizes import check_sizes
from etude.verify.rules.statistics import check_statistics
from etude.verify.rules.tables import check_tables
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Finding

RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    check_arithmetic,
    check_differences,
    check_formulas,
    check_counting,
    check_tables,
    check_classification,
    check_selection,
    check_statistics,
    check_losses,
    check_budget,
    check_relations,
    check_sizes,
    check_bytes,
    check_hardware,
    check_schedule,
    check_grids,
    check_dates,
    check_repeats,
    check_claims,
    check_code,
    check_encoding,
)
_SAME_FACTOR = 0.01
_MOST_LISTED, _MOST_FINDINGS = 2_000, 5_000
_ORDER = {CONTRADICTS: 0, UNSETTLED: 1, CONFIRMED: 2}


@dataclass(frozen=True)
class Checked:
    """The findings on a document, by line, and what was not examined.

    figures    numbers in prose, lists and tables; examined  those that a verdict looked at
    sentences  those with a figure; unexamined  (line, text) of those that no verdict looked at
    """

    document: Document
    findings: list[Finding]
    figures: int
    examined: int
    sentences: int
    unexamined: list[tuple[int, str]]

    @property
    def contradictions(self) -> list[Finding]:
        """The findings that contradict."""
        return [finding for finding in self.findings if finding.verdict == CONTRADICTS]

    def count(self, verdict: str) -> int:
        """The number of findings with a verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "document": self.document.name,
            "verdicts": {verdict: self.count(verdict) for verdict in _ORDER},
            "findings": [finding.to_dict() for finding in self.findings],
            "figures": self.figures,
            "figures_examined": self.examined,
            "sentences": self.sentences,
            "not_examined": [{"line": line, "text": text} for line, text in self.unexamined],
            "not_read": self.document.unread,
        }


def check_path(path: Path) -> Checked:
    """Check the document in a file. Raises: InputError if it cannot be read."""
    return check_document(read_document(path))


def check_document(document: Document) -> Checked:
    """Check a document that was read."""
    facts = find_facts(document)
    findings: dict[tuple[str, int, str, str], Finding] = {}
    for rule in RULES:
        for finding in rule(facts):
            findings.setdefault((finding.rule, finding.line, finding.quoted, finding.why), finding)
            if len(findings) >= _MOST_FINDINGS:
                break
    kept = sorted(
        _told_once(_roots(findings.values())), key=lambda finding: (finding.line, _ORDER[finding.verdict])
    )
    seen = {place for finding in kept for place in finding.examined}
    told = {finding.line for finding in kept}
    rest = [
        (sentence.line, sentence.text)
        for sentence in facts.sentences
        if sentence.figures and sentence.line not in told
        and not any((sentence.line_of(figure), figure.text) in seen for figure in sentence.figures)
    ]  # fmt: skip
    if facts.unread_figures:
        document.unread.append(f"{facts.unread_figures:,} figures after the first {facts.figures:,}")
    if len(rest) > _MOST_LISTED:
        document.unread.append(f"{len(rest) - _MOST_LISTED:,} more sentences that are not listed")
    figures = facts.figures + facts.unread_figures
    counted = sum(bool(sentence.figures) for sentence in facts.sentences)
    return Checked(document, kept, figures, min(len(seen), figures), counted, rest[:_MOST_LISTED])


def _roots(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings without contradictions that rest on a figure which another one contradicts."""
    listed = list(findings)
    wrong: dict[tuple[int, str], list[int]] = {}
    for number, each in enumerate(listed):
        if each.verdict == CONTRADICTS and len(each.examined) > 1:
            wrong.setdefault(each.examined[0], []).append(number)
    told: set[frozenset[tuple[int, str]]] = set()
    for number, each in enumerate(listed):
        figures = frozenset(each.examined)
        if each.verdict == CONTRADICTS and figures:
            claimed = frozenset([(each.line, f"{each.rule} {each.quoted}")])
            if (
                figures in told and len(figures) > 1
            ) or claimed in told:  # of the same figures, from another end
                continue
            told |= {figures, claimed}
        causes = {
            at for place in each.examined[1:] for at in wrong.get(place, ())
            if at != number
            and _is_alike(listed[at].factor, each.factor, is_over=f"/ {place[1]}" in each.why)
        }  # fmt: skip
        is_mutual = any(set(listed[at].examined[1:]) & set(each.examined[:1]) for at in causes)
        if each.verdict != CONTRADICTS or not causes or (is_mutual and number < min(causes)):
            yield each


def _is_alike(first: float, second: float, *, is_over: bool) -> bool:
    """True if a figure that is off by a factor explains one that it is multiplied into, or is under."""
    if first <= 0 or second <= 0:
        return False
    return abs(first * (1 / second if is_over else second) - 1) < _SAME_FACTOR


def _told_once(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, with a contradiction that several lines repeat told at the first, the others examined."""
    kept: dict[tuple[str, ...], Finding] = {}
    for finding in sorted(findings, key=lambda each: each.line):
        figure = finding.examined[0][1] if finding.examined else f"{finding.quoted} {finding.line}"
        place = "" if finding.verdict == CONTRADICTS else f"{finding.line} {finding.quoted}"
        key = (finding.verdict, finding.rule, finding.why, figure, place)
        first = kept.get(key)
        kept[key] = replace(first, examined=first.examined + finding.examined) if first else finding
    return list(kept.values())

"""Scores of a classifier from each other and from the counts of its right and wrong answers."""

import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Fact, Facts, Table
from etude.verify.ranges import Range, exactly
from etude.verify.rules.tables import cell_at, fact_of
from etude.verify.verdicts import Finding, Reading, judge

_MEANS = re.compile(r"macro|micro|weighted|average|avg|mean", re.I)
_PREDICTED = re.compile(r"\bpredict\w*|\bpred\b", re.I)
_CELLS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


def check_classification(facts: Facts) -> Iterator[Finding]:
    """F1 from precision and recall, and all scores from a confusion matrix."""
    yield from _harmonic(facts)
    matrix = _matrix(facts)
    if matrix:
        yield from _from_counts(facts, *matrix)


def _share(fact: Fact, found: Range) -> Range:
    """A score as a share of one, whether it is printed as that or in percent."""
    return found / 100.0 if fact.figure.unit == "%" or fact.value > 1 else found


def _as_printed(fact: Fact, found: Range) -> Range:
    return found * 100.0 if fact.figure.unit == "%" or fact.value > 1 else found


def _harmonic(facts: Facts) -> Iterator[Finding]:
    for claimed in facts.named("f1", roles=("plain", "other", "to")):
        p, r = (_only(facts.beside(claimed, name)) for name in ("precision", "recall"))
        if p is None or r is None or p.value <= 0 or r.value <= 0 or _is_mean(facts, claimed):
            continue
        if not all(0 <= each.value <= 100 for each in (p, r)) or (p.value > 1) != (r.value > 1):
            continue
        tight, loose = (
            _as_printed(claimed, _f1(_share(p, one), _share(r, two)))
            for one, two in ((p.figure.tight, r.figure.tight), (p.figure.loose, r.figure.loose))
        )
        text = f"2 x {p.figure.text} x {r.figure.text} / ({p.figure.text} + {r.figure.text})"
        yield judge("scores", claimed, [Reading(text, tight, loose, (p, r))])


def _only(found: Sequence[Fact]) -> Fact | None:
    return found[0] if len(found) == 1 else None


def _f1(p: Range, r: Range) -> Range:
    ends = [2 * a * b / (a + b) if a + b > 0 else 0.0 for a, b in ((p.low, r.low), (p.high, r.high))]
    return Range(*ends)


def _is_mean(facts: Facts, fact: Fact) -> bool:
    """True of a mean over classes or seeds, which does not follow from the means of the others."""
    sentence = facts.sentence_of(fact)
    words = sentence.text if sentence else ""
    for table in facts.tables if not sentence else ():
        if table.scope == fact.scope[:-1]:
            words += " ".join(table.header)
            words += " ".join(row[0].text for row in table.rows if row and row[0].line == fact.line)
    return bool(_MEANS.search(f"{fact.label} {words}") or "±" in words)


def _matrix(facts: Facts) -> tuple[list[list[Fact]], str] | None:
    """(rows of counts, the actual class by row and the predicted by column) of the only confusion matrix."""
    found = [each for table in facts.tables[:500] if (each := _matrix_of(table))]
    if len(found) == 1:
        return found[0], "table"
    cells = [facts.named(name, roles=("plain", "other")) for name in _CELLS]
    if not found and all(len(each) == 1 for each in cells):
        (tp,), (fp,), (fn,), (tn,) = cells
        return [[tp, fn], [fp, tn]], "cells"
    return None


def _matrix_of(table: Table) -> list[list[Fact]] | None:
    heads, size = table.header[1:], len(table.rows)
    labels = [row[0].text if row else "" for row in table.rows]
    is_marked = all(_PREDICTED.search(each) for each in heads) or _PREDICTED.search(table.header[0])
    is_turned = all(_PREDICTED.search(each) for each in labels)
    if not 2 <= size <= 20 or len(heads) != size or not (is_marked or is_turned):
        return None
    rows = [
        [fact_of(table, cell, head) for at, head in enumerate(heads, 1) if (cell := cell_at(row, at))]
        for row in table.rows
    ]
    if any(len(row) != size for row in rows) or any(
        each.figure.unit or each.value != int(each.value) for row in rows for each in row
    ):
        return None
    return [list(column) for column in zip(*rows)] if is_turned and not is_marked else rows


def _from_counts(facts: Facts, rows: list[list[Fact]], source: str) -> Iterator[Finding]:
    used = tuple(each for row in rows for each in row)
    values = [[each.value for each in row] for row in rows]
    total, right = sum(map(sum, values)), sum(values[at][at] for at in range(len(values)))
    if not total:
        return
    shown = f"({' + '.join(rows[at][at].figure.text for at in range(len(rows)))}) / {total:,.0f}"
    made: dict[str, list[tuple[str, float]]] = {"accuracy": [(shown, right / total)]}
    classes = range(len(values)) if source == "table" else range(1)
    for at in classes:
        hits, guessed, actual = values[at][at], sum(row[at] for row in values), sum(values[at])
        for name, whole in (("precision", guessed), ("recall", actual)):
            if whole:
                made.setdefault(name, []).append((f"{hits:,.0f} / {whole:,.0f}", hits / whole))
        if guessed + actual:
            made.setdefault("f1", []).append(
                (f"2 x {hits:,.0f} / {guessed + actual:,.0f}", 2 * hits / (guessed + actual))
            )
    for name, ways in made.items():
        for claimed in facts.named(name):
            words = facts.words_before(claimed, 80) + facts.words_after(claimed)
            if len(ways) > 6 or _is_mean(facts, claimed) or re.search(r"always|baseline|guess|chance", words):
                continue
            if claimed.scope[:-3] != used[0].scope[:-3] and len(facts.named(name)) > 1:
                continue
            readings = []
            for text, value in ways:
                expected = _as_printed(claimed, exactly(value))
                readings.append(Reading(text, expected, expected, used))
            yield judge("scores", claimed, readings, any_confirms=True)

"""Differences and ratios in prose or in a column, held against the pairs of figures that they may be of."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from etude.verify.facts import Cell, Facts, Sentence, Table
from etude.verify.find import DIFFERS, DIFFERS_BY
from etude.verify.names import metrics_in
from etude.verify.quantities import Figure
from etude.verify.ranges import Range
from etude.verify.rules.arithmetic import fact_in
from etude.verify.rules.statistics import Series, series_of
from etude.verify.rules.tables import fact_of
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge

_MOST_CELLS, _MOST_LABELS, _MOST_POINTS, _MOST_TABLES = 40, 12, 12, 8
_TIMES = re.compile(
    r" times (?:as|faster|slower|larger|smaller|longer|more|the)\b|x (?:faster|slower|larger|smaller"
    r"|longer)\b"
    r"|-fold\b| times\s*(?:$|[,.;])", re.I
)  # fmt: skip
_RELATIVE = re.compile(r"\brelative(?:ly)?\b", re.I)
_PAIR = re.compile(
    r"[^.;]{0,40}?(?:\bto\b|->|→|=>|\bagainst\b|\bversus\b|\bvs\.?|\bbefore\b|\band\b|,)[^.;]{0,25}", re.I
)
_MARK = re.compile(r"\b(?:step|epoch|iteration|update)s? (\d[\d,]*(?:\.\d+)?)\b", re.I)
# What a ratio is of, and the rows that are.
_ROWS = {
    r"\bgenerat\w+|\bthroughput": r"generat|throughput",
    r"\b(?:as fast|faster|quick\w*|slow\w*)\b": r"/ ?s|second|latency|speed|throughput|time",
    r"\b(?:as long|longer|takes?|took)\b": r"second|time|minute|hour|duration|latency",
    r"\b(?:large|larger|big|bigger|small|smaller)\b": r"param|size|memory",
}
_SPAN = re.compile(
    r"\b(?:from|between) (?:step|epoch|iteration|update)s? (\d[\d,]*(?:\.\d+)?) (?:to|and) "
    r"(?:\w+ )?(\d[\d,]*(?:\.\d+)?)\b",
    re.I,
)
_SUPPOSED = re.compile(r"\b(?:would|could|should|might|if|about to)\b", re.I)
_CHANGE = re.compile(r"^(?:Δ|δ|delta|change|diff\w*|difference)\b", re.I)
_FEWEST_ALIKE = 2

Pair = tuple[Figure, Figure]


def check_differences(facts: Facts) -> Iterator[Finding]:
    """Differences, ratios and relative changes whose two figures stand somewhere else."""
    tables = [table for table in facts.tables if len(table.rows) <= _MOST_CELLS]
    series = [each for table in tables for each in series_of(table)]
    for sentence in facts.sentences:
        if 1 <= len(sentence.figures) <= _MOST_CELLS and sentence.block.kind != "heading":
            for figure in sentence.figures:
                if figure.is_usable and (finding := _judge(facts, sentence, figure, tables, series)):
                    yield finding
    for table in tables:
        yield from _against_first(table)


def _judge(
    facts: Facts, sentence: Sentence, figure: Figure, tables: Sequence[Table], series: Sequence[Series]
) -> Finding | None:
    """The verdict on one figure of a sentence, if it is a difference or a ratio of two that are known."""
    kind = _kind(sentence, figure)
    if not kind or _SUPPOSED.search(sentence.text):
        return None
    beside = _beside(sentence, figure)
    marked = _marked(sentence, series) if kind == "difference" else []
    named = _named(sentence, figure, tables)
    before = _changed_before(facts, sentence, figure) if kind == "percent" else []
    firm = (
        beside
        or marked
        or before
        or _of_series(facts, figure, series)
        or (named if kind == "times" or figure.unit == "points" else [])
    )
    if not firm:
        return None
    every = firm if kind == "times" else [*firm, *named, *_around(facts, sentence, figure)]
    every = [
        pair for pair in every if pair in firm or all(_decimals(each) >= _decimals(figure) for each in pair)
    ]
    made = [each for pair in every for each in _readings(kind, pair, figure)]
    fitting = [each for each in made if each.tight.meets(figure.tight)]
    claimed = fact_in(sentence, figure)
    rule = "ratio" if kind == "times" else "change"
    if fitting:
        return judge(rule, claimed, fitting, any_confirms=True)
    usual = [each for pair in firm for each in _readings(kind, pair, figure)]
    is_open = kind == "difference" and "." not in figure.text
    return judge(rule, claimed, usual, any_confirms=True) if usual and not is_open else None


def _kind(sentence: Sentence, figure: Figure) -> str:
    """The kind of a figure that two others make: "difference", "times", "percent" or ""."""
    text = sentence.text
    before, after = text[max(0, figure.start - 40) : figure.start], text[figure.end : figure.end + 40]
    if _TIMES.match(after) or (figure.unit == "x" and _TIMES.match(text, figure.end - 1)):
        return "times" if figure.unit in ("", "x") else ""
    if figure.unit == "%":
        near = f"{before[-25:]} {after}"
        return "percent" if _RELATIVE.search(near) else ""
    is_difference = DIFFERS.search(before) or DIFFERS_BY.match(after)
    return "difference" if is_difference and figure.unit in ("", "points", "s") else ""


def _readings(kind: str, pair: Pair, claimed: Figure) -> Iterator[Reading]:
    one, two = pair
    if kind == "times":
        for a, b in ((one, two), (two, one)):
            if b.value > 0 and a.value > b.value:
                yield Reading(f"{a.text} / {b.text}", a.tight / b.tight, a.loose / b.loose)
    elif kind == "percent":
        for a, b in ((one, two), (two, one)):
            if b.value > 0:
                yield _unsigned(f"({a.text} - {b.text}) / {b.text}", a, b, claimed, relative=True)
    elif one.unit == two.unit and (claimed.unit in ("", "points") or claimed.unit == one.unit):
        yield _unsigned(f"{two.text} - {one.text}", two, one, claimed, relative=False)
        if claimed.unit == "points" and max(abs(one.value), abs(two.value)) <= 1:
            tight, loose = (two.tight - one.tight) * 100, (two.loose - one.loose) * 100
            sign = -1.0 if tight.middle < 0 else 1.0
            yield Reading(f"{two.text} - {one.text} in points", tight * sign, loose * sign)


def _unsigned(text: str, a: Figure, b: Figure, claimed: Figure, *, relative: bool) -> Reading:
    tight, loose = a.tight - b.tight, a.loose - b.loose
    if relative:
        tight, loose = tight / b.tight * 100, loose / b.loose * 100
    is_negative = tight.middle < 0 and claimed.text[:1] not in "-−"
    return Reading(text, tight * -1.0, loose * -1.0) if is_negative else Reading(text, tight, loose)


def _beside(sentence: Sentence, figure: Figure) -> list[Pair]:
    """The two figures of a sentence that its difference is of: `from 1.40 to 0.92, a fall of`."""
    others = [
        each for each in sentence.figures
        if each is not figure and each.is_usable and "." in each.text and not _kind(sentence, each)
        and each.unit in ("", "%")
    ]  # fmt: skip
    if len(others) != 2 or others[0].unit != others[1].unit:
        return []
    a, b = others
    gap = sentence.text[a.end : b.start]
    is_pair = bool(_PAIR.fullmatch(gap)) and not re.search(r"\bperplexity|\bppl\b", gap, re.I)
    return [(a, b)] if is_pair else []


def _marked(sentence: Sentence, series: Sequence[Series]) -> list[Pair]:
    """The values of a series between two of its steps that a sentence names."""
    span = _SPAN.search(sentence.text)
    marks = span.groups() if span else [match[1] for match in _MARK.finditer(sentence.text)]
    places = [float(each.replace(",", "")) for each in marks]
    if len(places) != 2:
        return []
    found = []
    lower = sentence.text.lower()
    is_held = re.search(r"\bval|held", lower) is not None
    for each in series:
        is_named = (
            "loss" not in each.name
            or each.name.startswith("validation" if is_held else "train")
            or not re.search("train|val", lower)
        )
        first, second = each.at(places[0]), each.at(places[1])
        if first and second and is_named:
            found.append((first.figure, second.figure))
    return found


def _of_series(facts: Facts, figure: Figure, series: Sequence[Series]) -> list[Pair]:
    """All pairs of the values of a metric, if its only series is a short one."""
    name = facts.name_of_change(figure)
    own = [each for each in series if each.name == name]
    if len(own) != 1 or len(own[0].points) > _MOST_POINTS:
        return []
    return list(itertools.combinations([fact.figure for _, fact in own[0].points], 2))


def _named(sentence: Sentence, figure: Figure, tables: Sequence[Table]) -> list[Pair]:
    """Pairs of cells of the two columns, or two rows, of a table that a sentence names."""
    title = sentence.block.section[-1] if sentence.block.section else ""
    text = f"{sentence.text} {title}".lower()
    lower = sentence.text.lower()
    before = re.split(r"\band\b|[,;]", lower[max(0, figure.start - 40) : figure.start])[-1]
    about = _about(before + re.split(r"\band\b|[,;]", lower[figure.end : figure.end + 40])[0])
    found: list[Pair] = []
    for table in tables:
        if len(tables) > _MOST_TABLES and table.scope[:-1] != sentence.scope[:-2]:
            continue
        columns = [at for at, head in enumerate(table.header) if at and _says(text, head)]
        rows = [at for at, row in enumerate(table.rows) if row and _says(text, row[0].text)]
        if len(columns) == 1 and len(table.header) == 3 and figure.unit in ("", "x"):
            columns = [1, 2]
        if 2 <= len(columns) <= _MOST_LABELS:
            rows_of_it = [row for row in table.rows if about and row and re.search(about, row[0].text, re.I)]
            for row in rows_of_it or table.rows:
                found += _pairs(row[at] for at in columns if at < len(row))
        elif 2 <= len(rows) <= _MOST_LABELS:
            for place in range(1, len(table.header)):
                found += _pairs(table.rows[at][place] for at in rows if place < len(table.rows[at]))
    return found


def _about(words: str) -> str:
    """A pattern of the rows that words such as `2.3 times as long` are of, "" for any."""
    found = [pattern for cue, pattern in _ROWS.items() if re.search(cue, words)]
    return found[0] if found else ""


def _decimals(figure: Figure) -> int:
    """The digits behind the point, as printed."""
    match = re.search(r"\.(\d+)", figure.text)
    return len(match[1]) if match else 0


def _changed_before(facts: Facts, sentence: Sentence, figure: Figure) -> list[Pair]:
    """The two values of a metric, from one to the other, that the sentences before tell of it."""
    names = {each.name for each in metrics_in(sentence.text[:600], figure.unit)}
    for one in reversed(facts.before(sentence, 3)):
        for name in names:
            ends = [each for each in facts.by_name.get(name, ()) if each.scope == one.scope]
            if [each.role for each in ends if each.role in ("from", "to")] == ["from", "to"]:
                first, second = (each.figure for each in ends if each.role in ("from", "to"))
                return [(first, second)]
    return []


def _says(text: str, label: str) -> bool:
    """True if a text has a label that is a name: no number, no word of one or two letters."""
    label = label.strip().lower()
    is_name = len(label) > 2 and bool(re.match(r"[a-z]", label))
    return is_name and re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None


def _pairs(cells: Iterable[Cell]) -> list[Pair]:
    figures = [cell.figure for cell in cells if cell.figure]
    return [(a, b) for a, b in itertools.combinations(figures, 2) if a.unit == b.unit]


def _around(facts: Facts, sentence: Sentence, figure: Figure) -> list[Pair]:
    """Pairs of figures of the sentence and of those shortly before it, and of the columns of its tables."""
    near = [*facts.before(sentence, 3), sentence]
    figures = [each for one in near for each in one.figures if each is not figure and each.unit != "points"]
    found = [(a, b) for a, b in itertools.combinations(figures[:_MOST_CELLS], 2) if a.unit == b.unit]
    for table in facts.tables[:20]:
        for place in range(1, min(len(table.header), 12)) if len(table.rows) <= _MOST_CELLS else ():
            found += _pairs(row[place] for row in table.rows if place < len(row))
    return found


def _against_first(table: Table) -> Iterator[Finding]:
    """A column of changes against the first row: one of them does not follow where the others do."""
    for place, head in enumerate(table.header):
        if not place or not _CHANGE.match(head) or len(table.rows) < 4:
            continue
        for other in range(1, len(table.header)):
            base = table.rows[0][other].figure if other < len(table.rows[0]) else None
            rows = [
                (row[other], row[place]) for row in table.rows[1:]
                if max(other, place) < len(row) and row[other].figure and row[place].figure
            ]  # fmt: skip
            if other == place or base is None or len(rows) < 3:
                continue
            judged = [_change(table, base, value, claimed) for value, claimed in rows]
            bad = [each for each in judged if each.verdict == CONTRADICTS]
            if len(bad) == 1 and len(judged) - len(bad) >= _FEWEST_ALIKE:
                yield from judged


def _change(table: Table, base: Figure, value: Cell, claimed: Cell) -> Finding:
    assert value.figure is not None
    tight, loose = value.figure.tight - base.tight, value.figure.loose - base.loose
    used = (fact_of(table, value, ""),)
    made = Reading(f"{value.figure.text} - {base.text}", tight, Range(loose.low, loose.high), used)
    return judge("change", fact_of(table, claimed, ""), [made])

"""Claims on the best, last or one step of a series, held against the table or log that has the series."""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from etude.verify.facts import Fact, Facts, Sentence, Table
from etude.verify.names import LOSSES, SCORES
from etude.verify.quantities import Figure, printed
from etude.verify.rules.tables import cell_at
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Finding, note

_BEST = re.compile(
    r"\b(?:best|peak(?:ed|s)?|bottomed|topped|lowest|minimum|min|highest|maximum|smallest)\b", re.I
)
_LAST = re.compile(
    r"\b(?:final(?:ly)?|last|ended|ends|finished|at the end|end of training|in the end)\b", re.I
)
_AT_THE_END = re.compile(r"(?:By|At|In) the (?:end|last|final)\b")
_BEST_MODEL = re.compile(r"\bbest (?:model|checkpoint|weights|score|result|value)\b", re.I)
_STATISTIC = re.compile(r"(?:mean|average|median|best|worst|min|max|minimum|maximum|last)", re.I)
_MEAN = re.compile(r"\b(?:mean|average|averaged|smoothed|window)\b", re.I)
_PLACE = re.compile(r"\b(steps?|epochs?|checkpoint)[ -]?(\d[\d,]*(?:\.\d+)?)([kK])?\b", re.I)
_OF_ANOTHER = re.compile(
    r"\b(?:second|third|other|next|previous|earlier|new|last) (?:run|attempt|training|try|model|version)\b",
    re.I,
)
_METRICS = (*sorted(LOSSES), "perplexity", "validation_perplexity", "train_perplexity", *sorted(SCORES))


@dataclass(frozen=True)
class Series:
    """A metric by step or epoch."""

    name: str
    unit: str
    points: tuple[tuple[float, Fact], ...]
    table: Table

    @property
    def best(self) -> tuple[float, Fact]:
        """The first point with the best value."""
        is_low = self.name in LOSSES or "perplexity" in self.name
        return (min if is_low else max)(self.points, key=lambda point: point[1].value)

    def at(self, place: float) -> Fact | None:
        """The value at a step or epoch."""
        return next((fact for at, fact in self.points if abs(at - place) < 1e-9), None)


def check_statistics(facts: Facts) -> Iterator[Finding]:
    """Figures of the text that a series of the document decides."""
    found = [each for table in facts.tables for each in series_of(table)]
    if not found:
        yield from _rows_of_statistics(facts)
        return
    yield from _best_of_all(facts, found)
    by_scope = {sentence.scope: sentence for sentence in facts.sentences}
    for name in _METRICS:
        for fact in facts.named(name, roles=("plain", "to")):
            sentence = by_scope.get(fact.scope)
            if sentence is None and fact.scope[-1].startswith("row") and len(facts.tables) > 1:
                yield from _judge_row(fact, found)
            elif sentence is not None and fact.figure.hedge == "":
                yield from _judge(fact, sentence, found)
    yield from _rows_of_statistics(facts)
    for name, unit in (("best_step", "steps"), ("best_epoch", "epochs")):
        for fact in facts.named(name):
            yield from _judge_best_place(fact, unit, found)


def _rows_of_statistics(facts: Facts) -> Iterator[Finding]:
    """`the mean rose from 67.4 to 69.6`, where the table's row of means has one of the two only."""
    rows = [
        (match[0].lower(), row, table) for table in facts.tables for row in table.rows
        if row and (match := _STATISTIC.fullmatch(row[0].text.strip()))
    ]  # fmt: skip
    for sentence in facts.sentences if rows else ():
        decimals = [each for each in sentence.figures if "." in each.text and each.is_usable]
        for word, row, table in rows:
            if len(decimals) < 2 or not re.search(rf"\b{word}s?\b", sentence.text, re.I):
                continue
            own = [value for cell in row[1:] for value in _printed_in(cell.text)]
            others = [
                value
                for each in table.rows
                if each is not row
                for cell in each[1:]
                for value in _printed_in(cell.text)
            ]
            right = [each for each in decimals if each.text in own]
            wrong = [each for each in decimals if each.text not in own and each.text in others]
            if len(right) == len(wrong) == 1 and len(own) > 1:
                where = next(
                    each[0].text
                    for each in table.rows
                    if each is not row and any(wrong[0].text in _printed_in(cell.text) for cell in each[1:])
                )
                rest = [value for value in own if value != right[0].text and "." in value]
                why = f"the row of the {word} has {', '.join(own)}; {wrong[0].text} stands in the row {where}"
                used = Fact("", wrong[0], sentence.line_of(wrong[0]), sentence.scope)
                yield note(
                    CONTRADICTS,
                    "statistic",
                    used.line,
                    wrong[0].text,
                    why,
                    fits=rest[0] if rest else "",
                    facts=(used,),
                )


def _printed_in(text: str) -> list[str]:
    return re.findall(r"(?<![\d.±])(?<!± )\d+\.\d+", text)


def _best_of_all(facts: Facts, found: list[Series]) -> Iterator[Finding]:
    """A figure without a name that is called the best, and is a value of one series that has a better one."""
    held = [each for each in found if not each.name.startswith("train") and each.name != "loss"]
    named = {id(each.figure) for each in facts.facts if each.name != "best_metric"}
    for sentence in facts.sentences:
        match = _BEST_MODEL.search(sentence.text)
        figures = [each for each in sentence.figures if "." in each.text and id(each) not in named]
        if not match or len(figures) != 1:
            continue
        figure = figures[0]
        series = [each for each in held if any(_is_same(figure, fact.figure) for _, fact in each.points)]
        if len(series) == 1 and not _is_same(figure, series[0].best[1].figure):
            at, best = series[0].best
            why = f"the best {series[0].name.replace('_', ' ')} is {best.figure.text}"
            why += f" at {series[0].unit[:-1]} {printed(at)}"
            claimed = Fact("", figure, sentence.line_of(figure), sentence.scope)
            yield note(
                CONTRADICTS,
                "best",
                claimed.line,
                figure.text,
                why,
                fits=best.figure.text,
                facts=(claimed, best),
            )


def series_of(table: Table) -> Iterator[Series]:
    """The metrics of a table by step or epoch."""
    if not table.by_row or len(table.rows) < 2:
        return
    for unit in ("steps", "epochs"):
        places = [at for at, name in enumerate(table.names) if name == unit]
        if len(places) == 1:
            break
    else:
        return
    for at, name in enumerate(table.names):
        if name not in _METRICS:
            continue
        points = [
            (a.figure.value, Fact(name, b.figure, b.line, table.scope, label=table.header[at]))
            for row in table.rows
            if (a := cell_at(row, places[0])) and (b := cell_at(row, at))
            and a.figure and b.figure and b.figure.is_usable
        ]  # fmt: skip
        if len(points) >= 2 and all(a[0] < b[0] for a, b in itertools.pairwise(points)):
            yield Series(name, unit, tuple(points), table)


def _match(fact: Fact, found: list[Series]) -> Series | None:
    """The series that a figure is of: the only one of its name, or of the only kind of loss there is."""
    same = [each for each in found if each.name == fact.name]
    if not same and fact.name in ("loss", "perplexity"):
        same = [each for each in found if each.name.endswith(fact.name)]
    if not same and fact.name.endswith(("_loss", "_perplexity")):
        generic = fact.name.split("_", 1)[1]
        same = [each for each in found if each.name == generic]
        same = [] if any(each.name.endswith(f"_{generic}") for each in found) else same
    return same[0] if len(same) == 1 else None


def _judge(fact: Fact, sentence: Sentence, found: list[Series]) -> Iterator[Finding]:
    series = _match(fact, found)
    if series is None or fact.scope[:-1] == series.table.scope or _OF_ANOTHER.search(sentence.block.text):
        return
    text, start = sentence.text, fact.figure.start
    before, after = text[max(0, start - 110) : start], text[fact.figure.end : fact.figure.end + 40]
    clause = re.split(r"[.;]\s|, (?:and|but|while) ", before)[-1]
    place = _place_of(clause, re.split(r"[.;]\s|, (?:and|but|while) ", after)[0], series.unit)
    if _MEAN.search(clause):
        return
    if _BEST.search(clause):
        yield from _judge_best(fact, series, place)
    elif place is not None:
        there = series.at(place)
        if there is not None:
            yield _verdict(
                fact,
                series,
                there,
                f"the table has {there.figure.text} at {series.unit[:-1]} {printed(place)}",
            )
    elif fact.label.startswith("evaluation "):
        if not any(_is_same(fact.figure, each.figure) for _, each in series.points):
            at, last = series.points[-1]
            yield _verdict(
                fact,
                series,
                last,
                f"no row has it; the last, {series.unit[:-1]} {printed(at)}, has {last.figure.text}",
            )
    elif _LAST.search(clause) or _AT_THE_END.match(text):
        at, last = series.points[-1]
        yield _verdict(
            fact, series, last, f"the last row, {series.unit[:-1]} {printed(at)}, has {last.figure.text}"
        )


def _place_of(before: str, after: str, unit: str) -> float | None:
    """The step or epoch that stands with a figure."""
    for match in (*reversed(list(_PLACE.finditer(before))), *_PLACE.finditer(after)):
        is_step = match[1].lower().startswith(("step", "check"))
        if is_step == (unit == "steps"):
            return float(match[2].replace(",", "")) * (1000 if match[3] else 1)
    return None


def _judge_best(fact: Fact, series: Series, place: float | None) -> Iterator[Finding]:
    at, best = series.best
    if place is not None and series.at(place) is not None and abs(place - at) > 1e-9:
        there = series.at(place)
        assert there is not None
        if there.value != best.value:
            why = (
                f"{series.unit[:-1]} {printed(at)} has {best.figure.text}, better than "
                f"{there.figure.text} at {printed(place)}"
            )
            yield note(
                CONTRADICTS,
                "best",
                fact.line,
                f"best at {series.unit[:-1]} {printed(place)}",
                why,
                fits=f"{best.figure.text} at {series.unit[:-1]} {printed(at)}",
                facts=(fact, best, there),
            )
            return
    is_low = series.name in LOSSES or "perplexity" in series.name
    is_beyond = (
        fact.figure.loose.high < best.figure.loose.low
        if is_low
        else fact.figure.loose.low > best.figure.loose.high
    )
    if is_beyond and place is None:
        why = (
            f"the best of the table is {best.figure.text} at {series.unit[:-1]} {printed(at)}; one "
            "between its rows may be better"
        )
        yield note(
            UNSETTLED, "best", fact.line, fact.figure.text, why, fits=best.figure.text, facts=(fact, best)
        )
        return
    yield _verdict(
        fact,
        series,
        best,
        f"the best of the table is {best.figure.text} at {series.unit[:-1]} {printed(at)}",
        rule="best",
    )


def _verdict(fact: Fact, series: Series, expected: Fact, why: str, *, rule: str = "statistic") -> Finding:
    quoted = f"{fact.label} {fact.figure.text}".strip()
    a, b = fact.figure, expected.figure
    if a.unit != b.unit and {a.unit, b.unit} == {"", "%"} and max(abs(a.value), abs(b.value)) > 1:
        factor = 100.0 if min(a.value, b.value) <= 1 else 1.0
        fits = (
            abs(a.value * (factor if a.unit == "" else 1) - b.value * (factor if b.unit == "" else 1)) < 0.51
        )
    else:
        fits = _is_same(a, b)
    if fits:
        return note(CONFIRMED, rule, fact.line, quoted, why, facts=(fact, expected))
    others = [f"{printed(at)}" for at, each in series.points if _is_same(a, each.figure)]
    if others:
        why += f"; {a.text} stands at {series.unit[:-1]} {others[0]}"
    return note(CONTRADICTS, rule, fact.line, quoted, why, fits=b.text, facts=(fact, expected))


def _is_same(first: Figure, second: Figure) -> bool:
    """True if the figure with more digits rounds to the other."""
    finer, coarser = sorted((first, second), key=lambda each: each.tight.high - each.tight.low)
    half = (coarser.tight.high - coarser.tight.low) / 2
    if math.isclose(finer.tight.high - finer.tight.low, 2 * half, rel_tol=1e-3):
        return math.isclose(first.value, second.value, rel_tol=1e-9)
    return (
        coarser.tight.low - 1e-9 * abs(finer.value)
        <= finer.value
        <= coarser.tight.high + 1e-9 * abs(finer.value)
    )


def _judge_row(fact: Fact, found: list[Series]) -> Iterator[Finding]:
    """A row such as `Final validation loss | 2.91` of another table."""
    series = _match(fact, found)
    if series is None or series.table.scope == fact.scope[:-1]:
        return
    if _BEST.search(fact.label):
        yield from _judge_best(fact, series, _place_of(fact.label, "", series.unit))
    elif _LAST.search(fact.label):
        at, last = series.points[-1]
        yield _verdict(
            fact, series, last, f"the last row, {series.unit[:-1]} {printed(at)}, has {last.figure.text}"
        )


def _judge_best_place(fact: Fact, unit: str, found: list[Series]) -> Iterator[Finding]:
    metrics = [
        each for each in found if each.unit == unit and each.name not in ("train_loss", "train_perplexity")
    ]
    bests = {each.best[0] for each in metrics}
    if len(bests) == 1:
        (at,) = bests
        best = metrics[0].best[1]
        why = (
            f"the best {metrics[0].name.replace('_', ' ')} of the table is {best.figure.text} at "
            f"{unit[:-1]} {printed(at)}"
        )
        verdict = CONFIRMED if abs(at - fact.value) < 1e-9 else CONTRADICTS
        yield note(
            verdict,
            "best",
            fact.line,
            f"{fact.label} {fact.figure.text}",
            why,
            fits="" if verdict == CONFIRMED else printed(at),
            facts=(fact, best),
        )

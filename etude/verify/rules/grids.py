"""Grids: the number of settings is the product of their columns, and a plan is the sum of its grids."""

import math
import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Cell, Fact, Facts, Sentence, Table
from etude.verify.quantities import Figure
from etude.verify.ranges import exactly
from etude.verify.rules.tables import cell_at, fact_of
from etude.verify.verdicts import Finding, Reading, judge

_SET = re.compile(r"[{\[(]\s*([^{}\[\]()]{1,120}?)\s*[}\])]")
_VALUE = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?(?: ?%|[kKM]\b)?|true|false|[a-z][\w-]{0,30}", re.I)
_COUNT = re.compile(
    r"^\s*(?:different |distinct |hyper-?parameter |possible |total )*(?:configurations?|combinations?"
    r"|settings|runs|trials|experiments|trainings|configs|each|per model|grid points)\b",
    re.I,
)
_MORE_SETS = re.compile(
    r"\b(?:two|three|four|five|six|both) (?:different )?(?!models\b)[\w-]+ ?(?:lengths|values|settings"
    r"|choices|options|schedules?|seeds|optimi[sz]ers|ratios|sizes|rates)\b", re.I
)  # fmt: skip
_MODELS = re.compile(r"^\s*(?:\w+ ){0,3}models?\b", re.I)


def check_grids(facts: Facts) -> Iterator[Finding]:
    """Counts of settings beside the sets that they are made of."""
    totals = []
    for at, sentence in enumerate(facts.sentences):
        sets = _sets(sentence.text)
        if len(sets) < 2:
            continue
        sizes = [len(values) for _, _, values in sets]
        inside = [(start, end) for start, end, _ in sets]
        if _MORE_SETS.search(sentence.text):
            continue
        later = facts.sentences[at + 1 : at + 4]
        behind = [*later[:1], *[each for each in later[1:] if each.block is not sentence.block][:1]]
        free = [
            each for each in sentence.figures if not any(start <= each.start < end for start, end in inside)
        ]
        for figure in free:
            text = sentence.text
            before = text[max(0, figure.start - 4) : figure.start]
            is_count = bool(_COUNT.match(text[figure.end :]))
            if figure.unit or not (
                (re.search(r"[=:→]\s*$", before) and figure.start > inside[0][0]) or is_count
            ):
                continue
            fact = Fact("", figure, sentence.line_of(figure), sentence.scope)
            shown = " x ".join(map(str, sizes))
            yield judge("grid", fact, [_exact(shown, float(math.prod(sizes)))])
            totals.append(math.prod(sizes))
            break
        else:
            yield from _next_item(behind, sentence, sizes)
    yield from _plans(facts)
    yield from _products(facts)


def _next_item(behind: Sequence[Sentence], sentence: Sentence, sizes: Sequence[int]) -> Iterator[Finding]:
    """The count of settings that is an item of its own, after the item with the sets: `- 24 runs`."""
    for item in behind:
        lead = item.text[: item.figures[0].start] if item.figures else "-"
        is_told = re.fullmatch(
            r"(?:that|this|which|together|so|in (?:all|total)|it)\b[^.\d]{0,30}", lead, re.I
        )
        is_count = len(item.figures) == 1 and (is_told or (item.block.kind == "item" and len(lead) <= 2))
        if (
            is_count
            and item.scope[:-2] == sentence.scope[:-2]
            and _COUNT.match(item.text[item.figures[0].end :])
        ):
            fact = Fact("", item.figures[0], item.line, item.scope)
            yield judge("grid", fact, [_exact(" x ".join(map(str, sizes)), float(math.prod(sizes)))])


def _exact(text: str, value: float) -> Reading:
    return Reading(text, exactly(value), exactly(value))


def _sets(text: str) -> list[tuple[int, int, list[str]]]:
    """(start, end, values) of each list of choices in brackets or braces."""
    found = []
    for match in _SET.finditer(text):
        values = [part.strip() for part in re.split(r"[,/|]|\bor\b|\band\b", match[1])]
        if (
            all(values)
            and (len(values) > 1 or match[0][0] in "{[")
            and all(_VALUE.fullmatch(value) for value in values)
        ):
            if match[0][0] == "(" and not all(re.match(r"[-\d.]", value) for value in values):
                continue
            found.append((match.start(), match.end(), values))
    return found


def _products(facts: Facts) -> Iterator[Finding]:
    """`2 models x 8 configurations = 16`, `6 models with 12 configurations each: 72 runs`."""
    for sentence in facts.sentences:
        text = sentence.text
        models = [each for each in sentence.figures if _MODELS.match(text[each.end :]) and not each.unit]
        each_of = [
            each
            for each in sentence.figures
            if re.match(
                r"\s*(?:configurations?|combinations?|settings|runs|trials|experiments)?\s*(?:each"
                r"|per model|for each)",
                text[each.end :],
            )
            and not each.unit
        ]
        total = [
            each
            for each in sentence.figures
            if re.match(
                r"\s*(?:runs|trials|experiments|trainings)(?: in (?:all|total))?\b(?! each| per)",
                text[each.end :],
            )
            and each not in each_of
            and not each.unit
        ]
        if len(models) == len(each_of) == len(total) == 1:
            fact = _fact(sentence, total[0])
            shown = f"{models[0].text} x {each_of[0].text}"
            yield judge(
                "grid",
                fact,
                [
                    Reading(
                        shown,
                        exactly(models[0].value * each_of[0].value),
                        exactly(models[0].value * each_of[0].value),
                        (_fact(sentence, models[0]), _fact(sentence, each_of[0])),
                    )
                ],
            )


def _fact(sentence: Sentence, figure: Figure) -> Fact:
    return Fact("", figure, sentence.line_of(figure), sentence.scope)


def _plans(facts: Facts) -> Iterator[Finding]:
    """Rows of a table whose columns are sets, counts of settings, models and runs."""
    for table in facts.tables:
        count = _column(table, r"config|combin|settings|per model|each|grid")
        runs = _column(table, r"runs|trials|experiments|total", other=count)
        models = _column(table, r"^(?:number of |# ?)?models?$")
        for row in table.rows if count is not None else ():
            assert count is not None
            claimed = _fact_at(table, row, count)
            if claimed is None or re.match(r"total|sum", row[0].text, re.I):
                continue
            places = [at for at in range(len(row)) if at not in (count, runs, models)]
            sets = [len(values) for at in places for _, _, values in _choices(row[at].text)]
            if len(sets) >= 2:
                yield judge("grid", claimed, [_exact(" x ".join(map(str, sets)), float(math.prod(sets)))])
            total = _fact_at(table, row, runs) if runs is not None else None
            number = _number_of_models(row[models].text) if models is not None and models < len(row) else 0.0
            if total and number:
                shown = f"{number:g} models x {claimed.figure.text}"
                yield judge("grid", total, [_exact(shown, claimed.value * number)])


def _column(table: Table, words: str, other: int | None = None) -> int | None:
    """The first column whose heading has some words."""
    heads = enumerate(head.lower() for head in table.header)
    return next((at for at, head in heads if at != other and re.search(words, head)), None)


def _fact_at(table: Table, row: Sequence[Cell], at: int) -> Fact | None:
    """The count in a cell of a row."""
    cell = cell_at(row, at)
    if cell is None or cell.figure is None or cell.figure.unit:
        return None
    return fact_of(table, cell, table.header[at])


def _choices(text: str) -> list[tuple[int, int, list[str]]]:
    """The sets of a cell, which may stand there without brackets."""
    sets = _sets(text)
    values = [part.strip() for part in re.split(r",(?=\s)|\s/\s|;", text.strip(" {}[]()"))]
    if (
        not sets
        and len(values) > 1
        and all(re.fullmatch(r"\d+(?:\.\d+)?(?:e-?\d+)?", value) for value in values)
    ):
        return [(0, len(text), values)]
    if not sets and re.fullmatch(r"\s*\d+(?:\.\d+)?(?:e-?\d+)?\s*", text):
        return [(0, len(text), [text])]
    return sets


def _number_of_models(text: str) -> float:
    if re.fullmatch(r"\d{1,4}", text.strip()):
        return float(text)
    return float(len(text.split(","))) if text.strip() else 0.0

"""Sums, products, shares, splits and changes that a sentence or a cell states with their result."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.quantities import Figure
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge, note

_OPERATORS = {
    "×": "*",
    "x": "*",
    "*": "*",
    "·": "*",
    "÷": "/",
    "/": "/",
    "+": "+",
    "-": "-",
    "−": "-",
    "–": "-",
}
_OPERATOR = re.compile(r"(?<![A-Za-z])(?:[×x*·÷+=≈](?![A-Za-z])|/(?![A-Za-z])|(?<=\s)[-−–](?=\s))")
OF = re.compile(r"\s*(?:(?!instead)\w+[ -]){0,2}(?:of|out of|/)\s+(?:the |a total of |all )?(?:\w+ )?")
_SHARE_GAP = re.compile(
    r"[^%.;]{0,40}?(?:\(|=|, or|, i\.e\.|, that is|, |:|—|is|are|were|was|rounded"
    r"|rounded to) ?(?:about |around |~|≈)?"
)
LEVEL = re.compile(r"\s*(?:[\w-]+ ){0,2}(?:intervals?|confidence|ci\b|credible|quantile|percentile)", re.I)
_HOURS = re.compile(r"[ -](?:gpu|device|node|core|machine|accelerator|[ahv]\d00)[ -]?(hour|day)s?\b", re.I)
_AGAINST = re.compile(
    r"\)?,? (?:against|versus|vs\.?|compared (?:with|to)|up from|down from)"
    r" (?:the |only |about )?(?:\w+'s )?", re.I
)  # fmt: skip
_BY = re.compile(
    r"(?:\bby|\bup|\bdown|[(,:;–—]|increase|improve\w*|gain|rise|reduction|drop|decrease|of|a|an"
    r"|relative|absolute|about|\+|↑|↓|~)\s*[-+−~]?\(?$",
    re.I,
)


def check_arithmetic(facts: Facts) -> Iterator[Finding]:
    """Results that are printed beside what they are made of."""
    for sentence in facts.sentences:
        if len(sentence.figures) > 200:
            continue
        yield from _equations(sentence)
        yield from _shares(sentence)
        yield from _splits(sentence)
        yield from _changes(sentence)


def change_readings(first: Fact, second: Fact, claimed: Figure, words: str = "") -> list[Reading]:
    """The ways to read a change between two figures that is printed with a unit, the usual one first."""
    one, two, facts = first.figure, second.figure, (first, second)
    if one.unit != two.unit:
        return []
    difference, loose = two.tight - one.tight, two.loose - one.loose
    if claimed.unit == "" or claimed.unit == one.unit != "%":
        return [_absolute(f"{two.text} - {one.text}", difference, loose, claimed, facts)]
    relative = Reading(
        f"({two.text} - {one.text}) / {one.text}",
        difference / one.tight * 100,
        loose / one.loose * 100,
        facts,
    )
    relative = _absolute(relative.text, relative.tight, relative.loose, claimed, facts)
    factor = 1.0 if one.unit == "%" or abs(one.value) > 1 or abs(two.value) > 1 else 100.0
    points = _absolute(
        f"{two.text} - {one.text} in points", difference * factor, loose * factor, claimed, facts
    )
    if claimed.unit == "x":
        return [
            Reading(f"{two.text} / {one.text}", two.tight / one.tight, two.loose / one.loose, facts),
            Reading(f"{one.text} / {two.text}", one.tight / two.tight, one.loose / two.loose, facts),
        ]
    if claimed.unit == "points" or "absolute" in words:
        return [points]
    return [relative] if "relative" in words or (factor == 1.0 and one.unit != "%") else [relative, points]


def _absolute(text: str, tight: Range, loose: Range, claimed: Figure, facts: tuple[Fact, ...]) -> Reading:
    """A change without its sign, unless the claim prints one."""
    if claimed.text[:1] not in "+-−" and tight.middle < 0:
        tight, loose = tight * -1.0, loose * -1.0
    return Reading(text, tight, loose, facts)


def fact_in(sentence: Sentence, figure: Figure) -> Fact:
    """A figure of a sentence as one that can be judged."""
    return Fact("", figure, sentence.line_of(figure), sentence.scope)


def _equations(sentence: Sentence) -> Iterator[Finding]:
    figures = sentence.figures
    gaps = [_operator(sentence.text[a.end : b.start]) for a, b in itertools.pairwise(figures)]
    at = 0
    while at < len(gaps):
        if gaps[at] not in ("*", "/", "+", "-"):
            at += 1
            continue
        end = at
        while end < len(gaps) and gaps[end] in ("*", "/", "+", "-"):
            end += 1
        operands, operators = figures[at : end + 1], gaps[at:end]
        claimed = _result(sentence, gaps, at, end)
        inside = sentence.text[operands[0].end : operands[-1].start]
        is_nested = "(" in inside and any(each in "+-" for each in operators) and "*" in operators
        if is_nested and claimed is not None:
            yield from _nested(sentence, claimed, operands, operators)
            at = end + 1
            continue
        if claimed is not None and len(operands) <= 12 and all(each.hedge != "bound" for each in operands):
            yield from _judge_equation(sentence, claimed, operands, operators)
        at = end + 1


def _operator(gap: str) -> str:
    """The operator between two figures, "(" if the second opens a bracket, "" if they are apart."""
    found = _OPERATOR.findall(gap)
    if re.match(r"\s*\)?[²³]|\s*\)?\*\*", gap):
        return ""
    words = re.findall(r"[A-Za-z]+", gap)
    if len(found) == 1 and len(words) <= 5 and not re.search(r"[.;,:]\s", gap) and len(gap) < 50:
        if ("(" in gap) != (")" in gap) and found[0] not in "=≈×x*·":
            return ""
        return "=" if found[0] in "=≈" else _OPERATORS[found[0]]
    return "(" if not found and re.fullmatch(r"[\w\s-]{0,20}\(\s*", gap) else ""


def _result(sentence: Sentence, gaps: Sequence[str], at: int, end: int) -> Figure | None:
    """The figure that is said to be the result of the figures from at to end."""
    figures, text = sentence.figures, sentence.text
    if end < len(gaps) and gaps[end] == "=":
        return figures[end + 1]
    if at > 0 and gaps[at - 1] == "=" and (at < 2 or gaps[at - 2] == ""):
        return figures[at - 1]
    closing = text[figures[end].end : figures[end].end + 30].split(",")[0]
    is_product = all(each == "*" for each in gaps[at:end])
    if at > 0 and gaps[at - 1] == "(" and is_product and re.match(r"[\w\s-]{0,24}\)", closing):
        return figures[at - 1]
    return None


def _judge_equation(
    sentence: Sentence, claimed: Figure, operands: Sequence[Figure], operators: Sequence[str]
) -> Iterator[Finding]:
    units = {each.unit for each in operands if each.unit not in ("", "x")}
    is_sum = any(each in "+-" for each in operators)
    is_ratio = list(operators) == ["/"] and operands[0].unit == operands[1].unit
    if is_sum and len({each.unit for each in operands}) > 1:
        return
    expected = "" if is_ratio else next(iter(units), "")
    unit_factor = 1.0
    if is_sum and not units and claimed.unit in ("bytes", "s", "flops"):  # 5.4 + 10.8 = 16.2 GB
        printed_value = float(re.sub(r"[^\d.].*", "", claimed.text.replace(",", "")) or 0)
        unit_factor, expected = (claimed.value / printed_value if printed_value else 1.0), claimed.unit
    factor = 1.0
    if claimed.unit == "%" and is_ratio and operands[0].unit != "%":
        factor = 100.0
    elif "%" in units and not is_sum and claimed.unit != "%" and len(units) == 1:
        factor = 0.01
    elif expected == "s" and claimed.unit == "" and (hours := _HOURS.match(sentence.text, claimed.end)):
        expected, factor = "", 1 / 3600 if hours[1] == "hour" else 1 / 86400
    elif claimed.unit not in (expected, "x") and not (claimed.unit == "points" and expected == "%"):
        return
    if len(units) > 1 or (claimed.unit == "" and expected not in ("", "%")):
        return
    factor *= unit_factor
    text = operands[0].text
    for operator, each in zip(operators, operands[1:]):
        text += f" {'x' if operator == '*' else operator} {each.text}"
    tight = _evaluate([exactly(each.value) for each in operands], operators) * factor
    loose = _evaluate(
        [each.loose if each.unit or each.hedge or "." in each.text else each.exact for each in operands],
        operators,
    )
    if (
        is_ratio and claimed.unit == "" and claimed.tight.low == claimed.tight.high
    ):  # a count, with a last part
        tight = Range(math.floor(tight.low), math.ceil(tight.high))
    made = Reading(text, tight, loose * factor, tuple(fact_in(sentence, each) for each in operands))
    yield judge("arithmetic", fact_in(sentence, claimed), [made])


def _nested(
    sentence: Sentence, claimed: Figure, operands: Sequence[Figure], operators: Sequence[str]
) -> Iterator[Finding]:
    """A formula with sums in brackets and no unit, `24 x 16 x (2,048 + 2,048) = 1,572,864`."""
    text, tokens = sentence.text, list[str]()
    for at, each in enumerate(operands):
        gap = text[operands[at - 1].end : each.start] if at else text[max(0, each.start - 2) : each.start]
        marks = re.sub(r"[^()]", "", gap)
        head, _, tail = (marks.rpartition(")")[0] + marks.rpartition(")")[1], "", marks.rpartition(")")[2])
        tokens += [*head, *([operators[at - 1]] if at else []), *tail, repr(each.value)]
    tokens += [")"] * (tokens.count("(") - tokens.count(")"))
    if any(each.unit or each.hedge for each in (*operands, claimed)) or tokens.count("(") != tokens.count(
        ")"
    ):
        return
    try:
        value = _calculate(tokens)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return
    used = tuple(fact_in(sentence, each) for each in operands)
    yield judge(
        "arithmetic",
        fact_in(sentence, claimed),
        [Reading(" ".join(tokens), exactly(value), exactly(value).widen(1e-3), used)],
    )


def _calculate(tokens: list[str]) -> float:
    """The value of numbers, operators and brackets."""
    left = list(tokens)

    def term() -> float:
        total = atom()
        while left and left[0] in "*/":
            total = total * atom() if left.pop(0) == "*" else total / atom()
        return total

    def total() -> float:
        result = term()
        while left and left[0] in "+-":
            result = result + term() if left.pop(0) == "+" else result - term()
        return result

    def atom() -> float:
        first = left.pop(0)
        if first != "(":
            return float(first)
        inner = total()
        left.pop(0)
        return inner

    return total()


def _evaluate(values: Sequence[Range], operators: Sequence[str]) -> Range:
    total, term, sign = exactly(0.0), values[0], 1.0
    for operator, value in zip(operators, values[1:]):
        if operator == "*":
            term = term * value
        elif operator == "/":
            term = term / value
        else:
            total, term, sign = total + term * sign, value, 1.0 if operator == "+" else -1.0
    return total + term * sign


def _shares(sentence: Sentence) -> Iterator[Finding]:
    """`N of M (P %)`, `P % of M (N)`, `P % (N of M)`."""
    text = sentence.text
    for a, b, c in zip(sentence.figures, sentence.figures[1:], sentence.figures[2:]):
        first, second = text[a.end : b.start], text[b.end : c.start]
        facts = tuple(fact_in(sentence, each) for each in (a, b, c))
        is_list = "/" in first and re.search(r"\d\s*/\s*$", text[: a.start][-6:])
        is_closed = second.lstrip().startswith(")") and text.find("(", 0, a.start) >= 0
        if is_list or is_closed or not all(each.is_usable for each in (a, b, c)):
            continue
        if LEVEL.match(text, c.end):
            continue
        if c.unit == "%" and a.unit == b.unit != "%" and OF.fullmatch(first) and _SHARE_GAP.fullmatch(second):
            yield judge_share(facts[2], facts[0], facts[1])
        elif b.unit == c.unit == "" and _is_bracket(first) and OF.fullmatch(second):
            if a.unit == "%" or (a.unit == "" and a.value < 1 and "." in a.text and b.value <= c.value):
                yield judge_share(facts[0], facts[1], facts[2])
        elif (
            a.unit == "%"
            and b.unit == c.unit
            and b.unit != "%"
            and OF.fullmatch(first)
            and re.fullmatch(r"(?:\s\w+){0,3}\s?(?:\(|=|, i\.e\.|, that is,|, or) ?(?:about |~|≈)?", second)
        ):
            made = Reading(
                f"{a.text} of {b.text}", a.tight * b.exact / 100, a.loose * b.loose / 100, facts[:2]
            )
            yield judge("share", facts[2], [made])
    for a, b in zip(sentence.figures, sentence.figures[1:]):
        gap = text[a.end : b.start]
        if (
            a.unit == b.unit == ""
            and a.value > b.value > 0
            and re.fullmatch(r"\s(?:out )?of(?: the)? ", gap)
            and (
                a.value == int(a.value)
                and re.search(
                    r"^\s*(?:\w+ )?(?:steps|samples|examples|tests|problems|epochs|layers|parameters|runs)",
                    text[b.end :],
                )
            )
        ):
            yield note(
                CONTRADICTS,
                "share",
                sentence.line_of(a),
                f"{a.text}{gap}{b.text}",
                "a part is larger than the whole",
                facts=(fact_in(sentence, a), fact_in(sentence, b)),
            )


def _is_bracket(gap: str) -> bool:
    return bool(re.fullmatch(r"(?:\s\w+){0,3}\s?\(\s?", gap))


def judge_share(claimed: Fact, part: Fact, whole: Fact) -> Finding:
    """The verdict on a share by its part and its whole."""
    a, b = part.figure, whole.figure
    factor = 100.0 if claimed.figure.unit == "%" else 1.0
    is_counted = a.tight.low == a.tight.high and a.value >= 100 and a.value % 10 > 0  # so is the whole
    tight = a.tight / b.tight * factor
    loose = tight if is_counted else a.loose / b.loose * factor
    return judge("share", claimed, [Reading(f"{a.text} / {b.text}", tight, loose, (part, whole))])


def _splits(sentence: Sentence) -> Iterator[Finding]:
    """`95/5 split` is of 100."""
    for match in re.finditer(
        r"(?<![\d/.])(\d{1,3}(?:\.\d)?)%?\s?/\s?(\d{1,3}(?:\.\d)?)"
        r"(?:%?\s?/\s?(\d{1,3}(?:\.\d)?))?%?(?![\d/])",
        sentence.text,
    ):
        parts = [float(each) for each in match.groups() if each]
        inside = [figure for figure in sentence.figures if match.start() <= figure.start < match.end()]
        total = sum(parts)
        facts = [fact_in(sentence, figure) for figure in inside]
        around = sentence.text[max(0, match.start() - 25) : match.end() + 25].lower()
        if not facts or not 50 < total < 200 or "split" not in around:
            continue
        shown = " + ".join(f"{each:g}" for each in parts)
        verdict = "confirmed" if abs(total - 100) < 0.2 or abs(total - 1) < 0.01 else CONTRADICTS
        yield note(
            verdict,
            "share",
            facts[0].line,
            match[0],
            f"the parts are {shown} = {total:g}, a whole is 100 %",
            fits="" if verdict == "confirmed" else "parts that sum to 100",
            facts=facts,
        )


def _changes(sentence: Sentence) -> Iterator[Finding]:
    """`from A to B`, `A -> B`, with the change in percent, points or times beside it."""
    text, figures = sentence.text, sentence.figures
    pairs = [
        (a, b) for a, b in itertools.pairwise(figures)
        if a.unit in (b.unit, "") and a.is_usable and b.is_usable and (
            re.fullmatch(r"(?:\s(?!and)\w+){0,2}\s*(?:->|→|=>)\s*", text[a.end : b.start])
            or _AGAINST.fullmatch(text[a.end : b.start])
            or (re.fullmatch(r"[^.;\d]{0,30}?\sto\s(?:about |only |just )?", text[a.end : b.start])
                and re.search(r"\bfrom (?:about |~|an? )?(?:\w+ (?:\w+ )?of )?$", text[: a.start], re.I))
        )
    ]  # fmt: skip
    if len(pairs) != 1:
        return
    a, b = pairs[0]
    others = [
        each for each in figures
        if each.unit in ("%", "points", "x") and each not in (a, b) and each.is_usable
        and _BY.search(text[max(0, each.start - 24) : each.start])
    ]  # fmt: skip
    near = [each for each in others if 0 <= each.start - b.end < 60 or 0 <= a.start - each.end < 40]
    if not 1 <= len(near) <= 2 or len({each.unit for each in near}) < len(near):
        return
    if _AGAINST.fullmatch(text[a.end : b.start]):
        a, b = b, a
    for claimed in near:
        yield from _judge_change(sentence, a, b, claimed)


def _judge_change(sentence: Sentence, a: Figure, b: Figure, claimed: Figure) -> Iterator[Finding]:
    text = sentence.text
    start, end = min(a.start, b.start), max(a.end, b.end)
    between = text[end : claimed.start] if claimed.start > end else text[claimed.end : start]
    between = re.sub(r"\d[\d.]*\s?(?:%|percentage points|points|pp)\s\(", "", between)
    if re.search(r"\b(?:while|whereas|but|and (?!by)|with \w+ \w+ at|of (?:peak|all|the))\b|\d", between):
        return
    words = text[max(0, claimed.start - 20) : claimed.end + 20].lower()
    readings = change_readings(fact_in(sentence, a), fact_in(sentence, b), claimed, words)
    if readings and a.value != 0:
        yield judge("change", fact_in(sentence, claimed), readings, any_confirms=claimed.unit == "x")

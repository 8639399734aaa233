"""Functions, totals and shares that a sentence states with what they are made of."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from etude.verify.facts import Facts, Sentence
from etude.verify.quantities import Figure
from etude.verify.ranges import exactly
from etude.verify.rules.arithmetic import LEVEL, OF, fact_in, judge_share
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge, note

_COUNTED_OF = re.compile(r"\bof (?:the |all |our |these )?$", re.I)
_THAT_IS = re.compile(r"[^.;%]{0,40}?(?:\(|, (?:an? |or |i\.e\. )[^,;%]{0,30}?)\s*(?:about )?")
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ln": math.log, "log": math.log, "exp": math.exp, "e^": math.exp, "log2": math.log2, "sqrt": math.sqrt,
}  # fmt: skip
_CALL = re.compile(r"(?<![\w])(ln|log2|log|exp|e\^|sqrt)\s*[({]?\s*$", re.I)
_IS = re.compile(r"\s*[)}]?\s*(?:=|≈|~|is|gives|makes)\s*(?:about |roughly )?")
_LISTED = re.compile(r"\s*(?:[,;+)]|and\b)|[^,;.]{1,30}(?:,|\band\b)")
_PARTS_OF = re.compile(r"\s*of (?:the|these|all|our|its)\b", re.I)
_OVERLAPS = re.compile(r"\b(?:both|also|at least|overlap\w*|several|more than one)\b", re.I)
_WHICH_IS = re.compile(
    r"(?:\bwhich (?:is|are|makes)|\bthat is|\bi\.e\.|[(=,:]|\bor)\s*(?:about |a share of )?$", re.I
)
_TOTAL_ITEM = re.compile(r"(?:in )?(?:total|sum|altogether|together|overall)\b[^.\d]{0,20}:?\s", re.I)
_TOTAL = re.compile(
    r"\b(?:altogether|together|in total|in all|a total of|total(?:ling|ing|s|ed)?|sum(?:s"
    r"|med)?(?: up)?(?: to)?"
    r"|add(?:s|ing)? up to|combined)\b[\s:=,]*(?:of |to |is |that is |makes )?(?:about )?$", re.I
)  # fmt: skip


def check_formulas(facts: Facts) -> Iterator[Finding]:
    """Values of functions, totals of lists, counts beside shares."""
    last: Sentence | None = None
    for sentence in facts.sentences:
        if len(sentence.figures) > 200:
            continue
        before, last = last if last and last.block is sentence.block else None, sentence
        yield from _functions(sentence)
        yield from _sums(facts, sentence, before)
        yield from _proportional(sentence)
        yield from _counted_of(sentence)
        yield from _of_them(facts, sentence)
        yield from _share_first(sentence)
        yield from _bracketed(sentence)
        yield from _hundred(sentence)


def _functions(sentence: Sentence) -> Iterator[Finding]:
    """`ln(50,257) = 10.82`, `exp(2.85) = 17.3`."""
    text = sentence.text
    for inner, claimed in itertools.pairwise(sentence.figures):
        called = _CALL.search(text, max(0, inner.start - 12), inner.start)
        if not called or claimed.unit or inner.unit or not _IS.fullmatch(text[inner.end : claimed.start]):
            continue
        function = _FUNCTIONS[called[1].lower()]
        made = Reading(
            f"{called[1]}({inner.text})",
            inner.tight.map(function),
            inner.loose.map(function),
            (fact_in(sentence, inner),),
        )
        others = [replace(made, tight=inner.exact.map(math.log10), loose=inner.loose.map(math.log10))]
        yield judge("arithmetic", fact_in(sentence, claimed), [made, *(others if called[1] == "log" else [])])


def _sums(facts: Facts, sentence: Sentence, before: Sentence | None) -> Iterator[Finding]:
    """`A 2.5 h, B 72 h and C 1.5 h, altogether 76 h`: a list of one unit, its total behind it or below."""
    text, figures = sentence.text, sentence.figures
    for at, total in enumerate(figures):
        start = figures[at - 1].end if at else 0
        if not total.is_usable or not _TOTAL.search(text[start : total.start]):
            continue
        parts = [(sentence, each) for each in figures[:at]]
        if at == 0 and before and before.text.rstrip().endswith(";"):
            parts = [(before, each) for each in before.figures]
        elif at == 0 and sentence.block.kind == "item" and _TOTAL_ITEM.match(text):
            parts = _items_above(facts, sentence, total)
        if len(parts) < 2 or not all(each.is_usable and each.unit == total.unit for _, each in parts):
            continue
        is_listed = parts[0][0] is not sentence or all(
            len(gap) < 50 and _LISTED.match(gap)
            for gap in (text[a.end : b.start] for a, b in itertools.pairwise(figures[: at + 1]))
        )
        if not is_listed or (not total.unit and not _is_one_thing(sentence, parts)):
            continue
        yield _judge_sum(sentence, total, parts)


def _items_above(facts: Facts, sentence: Sentence, total: Figure) -> list[tuple[Sentence, Figure]]:
    """One figure of each item of a list above its total; none where an item has several, or another unit."""
    parts: list[tuple[Sentence, Figure]] = []
    for each in reversed(facts.before(sentence, 12)):
        own = [figure for figure in each.figures if figure.unit == total.unit]
        if each.block.kind != "item":
            break
        if len(own) != 1 or not re.match(r"[^.]{1,40}:\s", each.text):
            return []
        parts.append((each, own[0]))
    return parts[::-1] if total.unit else []


def _is_one_thing(sentence: Sentence, parts: Sequence[tuple[Sentence, Figure]]) -> bool:
    """True of counts whose first has a noun that the others leave out: `6 GPU hours, the large one 24`."""
    texts = [sentence.text[each.end : each.end + 25] for _, each in parts]
    nouns = [
        match[1].lower() if (match := re.match(r" (?!and\b|or\b)([A-Za-z]+)", each)) else "" for each in texts
    ]
    return bool(nouns[0]) and all(each in ("", nouns[0]) for each in nouns[1:])


def _judge_sum(sentence: Sentence, total: Figure, parts: Sequence[tuple[Sentence, Figure]]) -> Finding:
    tight, loose = exactly(0.0), exactly(0.0)
    for _, each in parts:
        tight, loose = tight + each.tight, loose + each.loose
    shown = " + ".join(each.text for _, each in parts)
    used = tuple(fact_in(where, each) for where, each in parts)
    return judge("total", fact_in(sentence, total), [Reading(shown, tight, loose, used)])


def _proportional(sentence: Sentence) -> Iterator[Finding]:
    """`90 % for training (877,500), 5 % for validation (48,750)`: shares of one whole."""
    text, pairs = sentence.text, []
    for share, count in itertools.pairwise(sentence.figures):
        gap = text[share.end : count.start]
        is_pair = share.unit == "%" and count.unit == "" and re.fullmatch(r"[^().;,%]{0,30}\(\s*", gap)
        if (
            is_pair
            and count.value > 100
            and share.value > 0
            and text[count.end : count.end + 1] in (")", " ")
        ):
            pairs.append((share, count))
    if len(pairs) < 2 or sum(share.value for share, _ in pairs) > 100.5:
        return
    (first, whole), *rest = sorted(pairs, key=lambda pair: -pair[0].value)
    for share, count in rest:
        shown = f"{share.text} where {first.text} are {whole.text}"
        tight = whole.tight / first.tight * share.tight
        loose = whole.loose / first.loose * share.loose
        used = (fact_in(sentence, whole), fact_in(sentence, first), fact_in(sentence, share))
        yield judge("share", fact_in(sentence, count), [Reading(shown, tight, loose, used)])


def _counted_of(sentence: Sentence) -> Iterator[Finding]:
    """`Of 164 problems it solved 41, a pass@1 of 25.0 %`."""
    text = sentence.text
    figures = [each for each in sentence.figures if text[each.start - 1 : each.start] != "@"]
    for whole, part, share in zip(figures, figures[1:], figures[2:]):
        is_counts = whole.unit == part.unit == "" and share.unit == "%" and 0 < part.value <= whole.value
        is_exact = whole.tight.low == whole.tight.high and part.tight.low == part.tight.high
        gap, behind = text[whole.end : part.start], text[part.end : share.start]
        is_whole = _COUNTED_OF.search(text[: whole.start]) or text[whole.end : whole.end + 1] == "-"
        if not is_counts or not is_exact or whole.value < 2 or "." in gap or ";" in gap or "(" in gap:
            continue
        if not is_whole or OF.fullmatch(gap) or not _THAT_IS.fullmatch(behind):
            continue
        if re.search(r"\b(?:from|up|by|improv\w*|gain|more|less|than|and)\b", behind) or LEVEL.match(
            text, share.end
        ):
            continue
        yield judge_share(fact_in(sentence, share), fact_in(sentence, part), fact_in(sentence, whole))


def _of_them(facts: Facts, sentence: Sentence) -> Iterator[Finding]:
    """`The set has 2,611 rows; 2,021 of them were right, which is 77.4 %`."""
    text = sentence.text
    for part, share in itertools.pairwise(sentence.figures):
        is_part = part.unit == "" and re.match(r" of (?:them|these|those|which)\b", text[part.end :])
        gap = text[part.end : share.start]
        if not is_part or share.unit != "%" or not _WHICH_IS.search(gap) or LEVEL.match(text, share.end):
            continue
        before = [(sentence, each) for each in sentence.figures if each.end <= part.start]
        before = before or [(one, each) for one in facts.before(sentence, 1) for each in one.figures]
        wholes = [(one, each) for one, each in before if each.unit == "" and each.value >= part.value]
        if wholes and part.value:
            one, whole = wholes[-1]
            yield judge_share(fact_in(sentence, share), fact_in(sentence, part), fact_in(one, whole))


def _share_first(sentence: Sentence) -> Iterator[Finding]:
    """`On the 1,034 questions 58.9 % are 609 right ones`."""
    text = sentence.text
    for whole, share, part in zip(sentence.figures, sentence.figures[1:], sentence.figures[2:]):
        is_counts = whole.unit == part.unit == "" and share.unit == "%" and 0 < part.value <= whole.value
        gap = text[share.end : part.start]
        if not is_counts or not re.fullmatch(r" (?:are|is|were|was|makes?|means) (?:about )?", gap):
            continue
        if re.search(r"\b(?:of|on|among|for) (?:the |these |our |all )?$", text[: whole.start]):
            tight, loose = whole.tight * share.tight / 100, whole.tight * share.loose / 100
            used = (fact_in(sentence, whole), fact_in(sentence, share))
            made = Reading(f"{share.text} of {whole.text}", tight, loose, used)
            yield judge("share", fact_in(sentence, part), [made])


def _bracketed(sentence: Sentence) -> Iterator[Finding]:
    """`On the 4,000 rows it is 63.9 % (2,556 right)`: shares of the count before them."""
    text, figures = sentence.text, sentence.figures
    pairs = [
        (a, b) for a, b in itertools.pairwise(figures)
        if a.unit == "%" and b.unit == "" and re.fullmatch(r" \(", text[a.end : b.start])
        and re.match(r" \w+\)", text[b.end :])
    ]  # fmt: skip
    first = pairs[0][0].start if pairs else 0
    counts = [
        each
        for each in figures
        if each.end <= first and each.unit == "" and each.tight.low == each.tight.high
    ]
    if len(counts) != 1 or any(part.value > counts[0].value for _, part in pairs):
        return
    for share, part in pairs:
        if re.search(r"\b(?:of|on|among|for) (?:the |these |our |all )?$", text[: counts[0].start]):
            yield judge_share(fact_in(sentence, share), fact_in(sentence, part), fact_in(sentence, counts[0]))


def _hundred(sentence: Sentence) -> Iterator[Finding]:
    """`Of the files 62 % are Python, 23 % Java and 25 % Go`: parts of one whole are at most 100 %."""
    shares = [each for each in sentence.figures if each.unit == "%" and each.is_usable]
    if len(shares) < 3 or len(shares) != len(sentence.figures) or not _PARTS_OF.match(sentence.text):
        return
    gaps = [sentence.text[a.end : b.start] for a, b in itertools.pairwise(shares)]
    is_list = all(re.fullmatch(r"[^.;:()]{1,40}?(?:,|,? and) ", gap) for gap in gaps)
    total = sum(each.value for each in shares)
    if is_list and total > 100 + len(shares) and not _OVERLAPS.search(sentence.text):
        used = [fact_in(sentence, each) for each in shares]
        why = f"{' + '.join(each.text for each in shares)} = {total:g} %"
        yield note(
            CONTRADICTS, "share", used[-1].line, shares[-1].text, why, fits="parts of 100 %", facts=used
        )

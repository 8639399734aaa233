"""Rows that are taken away, kept and parted in prose: what is left is the whole without what went."""

import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.quantities import Figure
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge

_LESS = re.compile(
    r"\b(?:remov\w+|drop(?:ped|ping|s)?|exclud\w+|discard\w+|filter\w* out|delet\w+|threw away|set aside"
    r"|held out|holding out|reserv\w+|eliminat\w+|left out|leaving out|skipp\w+|minus|without"
    r"|lost)\b(?! them| it)", re.I
)  # fmt: skip
_LEFT = re.compile(
    r"\b(?:went on with|going on with|continu\w+ with|leav(?:es?|ing)|left with|remain\w*|kept|keep(?:s|ing)?"
    r"|proceed\w* with|ending up with|ended up with|end up with|still had|retain\w+|train\w* on"
    r"|which left)\b", re.I
)  # fmt: skip
_SAID_AFTER = re.compile(r"[^.;,\d]{0,30}\b(?:remain\w*|(?:are|were|is) left|left|survived?|kept)\b", re.I)
_OPENING = re.compile(r"(?:^|[.;:]\s)(?:out )?of (?:the |these |our |all |all the |those )?$", re.I)
_OVERLAP = re.compile(
    r"\b(?:both|also|overlap\w*|more than one|at least|several|some of|of which|of these|of them|among them"
    r"|again|including|multiple)\b", re.I
)  # fmt: skip
_REST = re.compile(r"\b(?:rest|others?|remaining|all others)\b", re.I)


def check_counting(facts: Facts) -> Iterator[Finding]:
    """Differences and sums of counts in prose."""
    before: list[Sentence] = []
    for sentence in facts.sentences:
        if sentence.block.kind == "heading" or not sentence.figures or len(sentence.figures) > 60:
            continue
        before = [each for each in before if each.scope[:-1] == sentence.scope[:-1]][-2:]
        yield from _left(sentence, before)
        yield from _parts(sentence)
        before.append(sentence)


def _counts(sentence: Sentence) -> list[Figure]:
    return [
        each for each in sentence.figures
        if each.unit == "" and each.is_usable and each.value >= 1
        and not re.match(r"\s(?:steps|epochs|updates|batches|layers)\b", sentence.text[each.end :])
    ]  # fmt: skip


def _fact(sentence: Sentence, figure: Figure) -> Fact:
    return Fact("", figure, sentence.line_of(figure), sentence.scope)


def _left(sentence: Sentence, before: Sequence[Sentence]) -> Iterator[Finding]:
    """`We removed 7,500 of 50,000 and went on with 42,500`, with the whole here or in a sentence before."""
    text, counts = sentence.text, _counts(sentence)
    less = [each for each in counts if _governs(_LESS, text, each, counts)]
    left = [
        each for each in counts
        if each not in less
        and (_governs(_LEFT, text, each, counts) or _SAID_AFTER.match(text, each.end, each.end + 50))
    ]  # fmt: skip
    if not less or len(left) != 1 or left[0].start < less[0].start:
        return
    others = [each for each in counts if less[0].start < each.start < left[0].start]
    if len(less) > 1 or others:  # `dropping 180,000 duplicates and 45,000 broken files`
        if not all(
            re.search(r"(?:,|\band)\s+(?:another |further )?$", text[: each.start][-16:]) for each in others
        ):
            return
        less = [less[0], *others]
    gone, rest = less[0], left[0]
    wholes = [
        _fact(each, figure)
        for each in (sentence, *reversed(before))
        for figure in _counts(each)
        if figure not in (*less, rest) and figure.value >= max(gone.value, rest.value)
    ]
    if not wholes or gone.value == rest.value:
        return
    parts, made = tuple(_fact(sentence, each) for each in less), []
    is_round = rest.value % 100 == 0 and not rest.hedge  # made of the printed figures
    for whole in wholes[:4]:
        tight, loose = whole.figure.tight, whole.figure.loose
        for each in less:
            tight, loose = tight - each.tight, loose - each.loose
        text = " - ".join([whole.figure.text, *(each.text for each in less)])
        exact = all(each.tight.low == each.tight.high for each in (whole.figure, *less))
        made.append(Reading(text, tight, tight if is_round and exact else loose, (whole, *parts)))
    yield judge("arithmetic", _fact(sentence, rest), made, any_confirms=True)


def _governs(verb: re.Pattern[str], text: str, figure: Figure, counts: Sequence[Figure]) -> bool:
    """True if a verb stands shortly before a figure, and no other count between them."""
    start = max([each.end for each in counts if each.end <= figure.start], default=0)
    found = list(verb.finditer(text, max(start, figure.start - 60), figure.start))
    return bool(found) and not re.search(r"[.;]\s", text[found[-1].end() : figure.start])


def _parts(sentence: Sentence) -> Iterator[Finding]:
    """`Of 200 answers, 124 were right, 46 wrong and 30 empty`: the parts make the whole."""
    text, counts = sentence.text, _counts(sentence)
    if len(counts) < 3 or counts[0].tight.low != counts[0].tight.high:
        return
    whole, parts = counts[0], counts[1:]
    if not _OPENING.search(text[: whole.start]) or _OVERLAP.search(text[whole.end :]):
        return
    if any(each.value > whole.value or each.tight.low != each.tight.high for each in parts):
        return
    if not all(re.search(r"[,;:(]\s*$|\band\s+$|\bwhile\s+$", text[: each.start][-8:]) for each in parts):
        return
    total = sum(each.value for each in parts)
    claimed, used = _fact(sentence, whole), tuple(_fact(sentence, each) for each in parts)
    tight = parts[0].tight
    loose = parts[0].loose
    for each in parts[1:]:
        tight, loose = tight + each.tight, loose + each.loose
    finding = judge("total", claimed, [Reading(" + ".join(each.text for each in parts), tight, loose, used)])
    if finding.verdict == CONTRADICTS and total < whole.value:
        if _REST.search(text) or len(parts) < 3 or total < 0.8 * whole.value:
            return
        why = f"{finding.why}; parts that are not named may make up the rest"
        finding = Finding(UNSETTLED, "total", finding.line, finding.quoted, why, examined=finding.examined)
    yield finding

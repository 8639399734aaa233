"""Dates: days that exist, starts before ends, weekdays, and durations between two times."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, Finding, note

_ISO = re.compile(r"(?<!\d)(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2}))?)?(?![\d-])")
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_NAME = "|".join(_MONTHS)
_WRITTEN = re.compile(
    rf"\b(?:(\d{{1,2}})(?:st|nd|rd|th)? ({_NAME})|({_NAME}) (\d{{1,2}})(?:st|nd|rd|th)?),? (\d{{4}})(?!\d)",
    re.I,
)
_WEEKDAY = re.compile(r"\b(monday|tuesday|wednesday|thursday|friday|saturday|sunday),? (?:the )?$", re.I)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_START = re.compile(r"\b(?:start\w*|began|begin\w*|from|launched|created)\b", re.I)
_END = re.compile(r"\b(?:end\w*|finish\w*|complet\w*|until|to|stopped|done)\b", re.I)


def check_dates(facts: Facts) -> Iterator[Finding]:
    """Dates of sentences and of lists of a start, an end and a duration."""
    starts: list[tuple[datetime, Sentence, str]] = []
    ends: list[tuple[datetime, Sentence, str]] = []
    for sentence in facts.sentences:
        if not re.search(r"\d{4}", sentence.text):
            continue
        found: list[tuple[datetime, str, str]] = []
        for words, text, value in _dates(sentence.text):
            if value is None:
                yield note(
                    CONTRADICTS,
                    "date",
                    sentence.line,
                    text,
                    "there is no such day",
                    fits="a day of the calendar",
                )
                continue
            if (day := _WEEKDAY.search(words)) and _WEEKDAYS[value.weekday()] != day[1].lower():
                yield note(
                    CONTRADICTS,
                    "date",
                    sentence.line,
                    f"{day[1]}, {text}",
                    f"that day was a {_WEEKDAYS[value.weekday()].title()}",
                    fits=_WEEKDAYS[value.weekday()].title(),
                )
            found.append((value, text, words))
        if len(found) == 2 and re.search(r"\bfrom\b|\bstart|\bbegan|–|->|→", sentence.text, re.I):
            yield from _order(
                (found[0][0], sentence, found[0][1]),
                (found[1][0], sentence, found[1][1]),
                facts,
                within=sentence,
            )
        for value, text, words in found if len(found) == 1 else []:
            last = words[-30:]
            if _START.search(last) and not _END.search(re.split(_START, last)[-1]):
                starts.append((value, sentence, text))
            elif _END.search(last):
                ends.append((value, sentence, text))
    if len(starts) == len(ends) == 1:
        yield from _order(starts[0], ends[0], facts)


def _dates(text: str) -> Iterator[tuple[str, str, datetime | None]]:
    """(the words before, as printed, the time) of each date of a text, None for a day that does not exist."""
    for match in _ISO.finditer(text):
        year, month, day, hour, minute, second = (int(each or 0) for each in match.groups())
        yield text[: match.start()][-40:], match[0], _time(year, month, day, hour, minute, second)
    for match in _WRITTEN.finditer(text):
        month = _MONTHS.index((match[2] or match[3]).lower()) + 1
        yield text[: match.start()][-40:], match[0], _time(int(match[5]), month, int(match[1] or match[4]))


def _time(*parts: int) -> datetime | None:
    try:
        return datetime(*parts)  # type: ignore[arg-type]
    except ValueError:
        return None


def _order(
    start: tuple[datetime, Sentence, str],
    end: tuple[datetime, Sentence, str],
    facts: Facts,
    within: Sentence | None = None,
) -> Iterator[Finding]:
    first, second = start[0], end[0]
    if second < first:
        yield Finding(
            CONTRADICTS,
            "date",
            end[1].line,
            end[2],
            f"it ends before it starts, {start[2]} (line {start[1].line})",
            fits=f"after {start[2]}, or a start before {end[2]}",
            examined=((end[1].line, end[2]), (start[1].line, start[2])),
        )
        return
    has_hours = bool(re.search(r"\d:\d\d", start[2])) and bool(re.search(r"\d:\d\d", end[2]))
    before = r"(?:\bafter|\blast\w+|\btook|\bfor|[(=])\s*$"
    spans = [
        Fact("total_seconds", each, within.line_of(each), within.scope)
        for each in (within.figures if within else ())
        if each.unit == "s" and re.search(before, within.text[: each.start])
    ] if within else []  # fmt: skip
    for fact in [*facts.named("total_seconds"), *spans]:
        is_near = fact.scope == within.scope if within else fact.scope[:-2] == start[1].scope[:-2]
        if fact.figure.unit != "s" or not is_near:
            continue
        passed = (second - first).total_seconds()
        room = 60.0 if has_hours else 86_400.0
        lowest, highest = passed - room, passed + room
        if "day" in fact.figure.text and not has_hours:
            lowest, highest = passed - 1, passed + room  # both ends may count
        is_fitting = fact.figure.loose.low <= highest and lowest <= fact.figure.loose.high
        is_longer = fact.value > passed
        if is_fitting or is_longer or has_hours or within:
            verdict = CONFIRMED if is_fitting else CONTRADICTS
            why = f"{start[2]} to {end[2]} is {timedelta(seconds=passed)}"
            yield note(
                verdict,
                "date",
                fact.line,
                fact.figure.text,
                why,
                fits="" if is_fitting else str(timedelta(seconds=passed)),
                facts=(fact,),
            )

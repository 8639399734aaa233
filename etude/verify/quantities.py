"""Numbers as a document prints them: the interval that each stands for, its unit, and how it is hedged."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from etude.verify.ranges import Range, around, exactly

_MOST_DIGITS, _MOST_POWER = 30, 30
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+−](?=[\d.]))?(?=\.?\d)(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?"
    r"(?P<power>[eE][-+−]?\d+|\s?[×x·*]\s?10\^?\{?[-−]?\d+\}?)?(?P<power_of>\^\{?\d+\}?)?"
)
_DATE = re.compile(
    r"\b\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?Z?)?\b|\b\d{1,2}/\d{1,2}/\d{4}\b"
    r"|(?<![\d:])\d{1,2}:\d{2} ?(?:UTC|[ap]\.?m\b)|\b(?:\d{1,2}(?:st|nd|rd|th)? )?(?:January|February"
    r"|March|April"
    r"|May|June|July|August|September|October|November|December)(?: \d{1,2},?)? \d{4}\b"
)
_LINK = re.compile(
    r"https?://\S+|arXiv:\S+"
    r"|(?<!\S)\S{1,150}?\.(?:py|json|md|txt|yaml|toml|csv|safetensors|pt|bin)(?::\d+)?\b"
)
_GROUPS = re.compile(r"(?<![\w.,])\d{1,3}(?: \d{3})+(?![\w,.]\d|\d|[A-Za-z])")
_THREE_GROUPS = re.compile(r"(?<!\d )(?<![\w.,])[1-9]\d{0,2} \d{3} \d{3}(?! ?\d|[.,]\d)")
_CLOCK = re.compile(r"(?<![\w:.])(\d{1,3}):(\d{2})(?::(\d{2}))?(?![\d:])")
_LONG = re.compile(
    r"(?<![\w.,])(?:(\d+) ?(?:d|days?),? )?(?:(\d+) ?(?:h|hrs?|hours?),?(?: and)? ?)?"
    r"(\d+) ?(?:m|mins?|minutes?)\b(?:,?(?: and)? ?(\d+(?:\.\d+)?) ?(?:s|secs?|seconds?)\b"
    r"(?! ?(?:per\b|/|each\b|an? |for\b)))?"
)
_DAYS = re.compile(r"(?<![\w.,])(\d+) ?(?:d|days?),?(?: and)? (\d+) ?(?:h|hrs?|hours?)\b")
_MAGNITUDES = {
    "k": 1e3, "K": 1e3, "thousand": 1e3, "M": 1e6, "mn": 1e6, "million": 1e6, "B": 1e9, "bn": 1e9,
    "billion": 1e9,    "T": 1e12, "trillion": 1e12,
}  # fmt: skip
_BYTES = {
    "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    "TiB": 2**40, "bytes": 1.0,
}  # fmt: skip
_BINARY = {"kB": 1.024, "KB": 1.024, "MB": 1.024**2, "GB": 1.024**3, "TB": 1.024**4}
_TIMES = {
    "ms": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "mins": 60.0,
    "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "day": 86400.0, "days": 86400.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip
_FLOPS = {"GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18}
_UNIT = re.compile(
    r"[ \u00a0\u202f-]?(?:(?P<points>percentage[ -]points?|%-points?|% points?|pp\b|points?\b|pts\b)"
    r"|(?P<percent>%|percent\b|per cent\b)"
    r"|(?P<flops>[GTPE]FLOP)s?(?:/s|S)?\b"
    r"|(?P<bytes>[kKMGT]i?B|bytes)\b"
    r"|(?P<time>ms|secs?|seconds?|s|mins?|minutes?|hrs?|hours?|h|days?|weeks?)(?![\w'])"
    r"|(?P<size>thousand|million|billion|trillion|bn|mn|[kKMBT])(?![\w']))"
    r"|(?P<times>[x×])(?![\w])(?!\s?\d)"
)
_ABOUT = re.compile(
    r"(?:~|≈|∼|\b(?:about|around|approx\.?|approximately|roughly|nearly|almost|circa|ca\.|some))[ $]?$", re.I
)
_BOUND = re.compile(
    r"(?:(?<![-=])[<>≤≥]=?|±|\+/-|(?:^|\b(?:well|just|of|with|has|have|had|took|takes|is|was|are|were|and|to"
    r"|reach\w*|in) )over"
    r"|\b(?:more than|less than|under|at least|at most"
    r"|(?<!crept )(?<!rose )(?<!went )(?<!climbed )(?<!back )up to|below"
    r"|above|fewer than|beyond|exceed\w*"
    r"|within|no more than|(?<!its )(?<!the )(?:maximum|minimum) of|max\.?|min\.?"
    r"|between|limit of|until))[ $]?$", re.I
)  # fmt: skip
_BETWEEN = re.compile(r"(?:\s?[kKMB]?(?:%|h|s|GB|min|hours)?)\s?(?:-|–|—|\.\.|(?<=\s)to(?=\s))\s?", re.I)


@dataclass(frozen=True)
class Figure:
    """A number of a document.

    text    as printed, with its unit
    value   in the unit's base: seconds, bytes, operations a second; percent and points stay as printed
    tight   what rounding leaves open
    loose   what a careless writer leaves open as well: cut digits, round numbers, GB for GiB, "about"
    unit    "", "%", "points", "bytes", "s", "flops" or "x"
    hedge   "", "about", "bound" (at least, up to) or "range" (one end of 4-6)
    start, end  in the text that it was found in
    """

    text: str
    value: float
    tight: Range
    loose: Range
    unit: str
    hedge: str
    start: int
    end: int

    @property
    def exact(self) -> Range:
        """The number as it stands, for a setting, which is not rounded."""
        return exactly(self.value) if not self.hedge else self.tight

    @property
    def is_usable(self) -> bool:
        """True if the figure says one number."""
        return self.hedge not in ("bound", "range")


def figures_of(text: str, *, has_blanks: bool = False) -> list[Figure]:
    """The figures of a line or paragraph in order; dates, links, versions and names are none.

    has_blanks  true of a document that writes groups of three digits with blanks: 1 234 567
    """
    found: list[Figure] = []
    if not re.search(r"\d", text):
        return found
    hidden = re.sub(r"(?<=\d)x(?=\d)", "×", _hide(text))
    if has_blanks:
        hidden = _GROUPS.sub(lambda match: match[0].replace(" ", ","), hidden)
    for figure in _durations(hidden):
        found.append(figure)
        hidden = hidden[: figure.start] + "\x00" * (figure.end - figure.start) + hidden[figure.end :]
    found += [made for match in _NUMBER.finditer(hidden) if (made := _figure(hidden, match))]
    found.sort(key=lambda figure: figure.start)
    if has_blanks:
        found = [replace(each, text=text[each.start : each.end].strip()) for each in found]
    return _ranges(hidden, found)


def writes_blanks(text: str) -> bool:
    """True if a text writes groups of three digits with blanks between them."""
    return bool(_THREE_GROUPS.search(text))


def dates_in(text: str) -> list[tuple[str, int]]:
    """The dates and times of day of a text with their places."""
    return [(match[0], match.start()) for match in _DATE.finditer(text)]


def printed(value: float) -> str:
    """A number for a sentence: whole ones with commas, others to five digits."""
    if not math.isfinite(value):
        return "no finite number"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.5g}" if abs(value) < 1e6 else f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"


def magnitude_of(text: str) -> tuple[float, str]:
    """The factor and the sign of the magnitude that a figure is printed with: of `12.8 B` 1e9 and B."""
    match = re.search(r"(thousand|million|billion|trillion|bn|mn|[kKMBT])$", text)
    return (_MAGNITUDES[match[1]], match[1]) if match else (1.0, "")


def _hide(text: str) -> str:
    for pattern in (_LINK, _DATE):
        text = pattern.sub(lambda match: "\x00" * len(match[0]), text)
    return text


def _figure(text: str, match: re.Match[str]) -> Figure | None:
    whole, part, power = match["whole"], match["part"] or "", match["power"] or ""
    if match["power_of"] or not (whole or part) or (not whole and not part):
        return None
    digits, end = (whole or "").replace(",", "") + part, match.end()
    exponent = (
        int(re.sub(r"^.*?(?=[-−]?\d+\}?$)", "", power).strip("}+").replace("−", "-")) if _short(power) else 99
    )
    if len(digits) > _MOST_DIGITS or abs(exponent if power else 0) > _MOST_POWER:
        return None
    if re.match(r"[A-Za-zµ]-$", text[max(0, match.start() - 2) : match.start()]) or re.match(
        r"\.\d", text[end : end + 2]
    ):
        return None
    exponent = exponent if power else 0
    unit = _UNIT.match(text, end)
    rest = unit.end() if unit else end
    if re.match(r"[A-Za-z_]", text[rest : rest + 1]) or (
        re.match(r"-[A-Z0-9]", text[rest : rest + 2]) and unit
    ):
        if unit and re.match(r"[A-Za-z_]", text[end : end + 1]) is None:
            unit, rest = None, end
        else:
            return None
    sign = -1.0 if match["sign"] in ("-", "−") else 1.0
    scale, name, spread = _scale(unit)
    value = sign * float(digits + "e" + str(exponent)) * scale
    decimals = len(part) - 1 if part else 0
    half = 0.5 * 10.0 ** (exponent - decimals) * scale
    before = text[max(0, match.start() - 32) : match.start()]
    hedge = "bound" if text[rest : rest + 1] == "+" else _hedge(before, name)
    is_count = not part and not power and scale == 1.0 and name in ("", "x")
    tight = exactly(value) if is_count else around(value, half)
    loose = _loosen(value, half, digits, is_count=is_count)
    if spread != 1.0:
        loose = Range(loose.low, loose.high * spread)
    if hedge == "about":
        tight = around(value, max(_significant(digits) * half * 2, 0.02 * abs(value)))
        loose = Range(min(loose.low, value - 0.1 * abs(value)), max(loose.high, value + 0.1 * abs(value)))
    shown = text[match.start() : rest].strip()
    return Figure(
        text=shown,
        value=value,
        tight=tight,
        loose=loose,
        unit=name,
        hedge=hedge,
        start=match.start(),
        end=rest,
    )


def _hedge(before: str, unit: str) -> str:
    """The hedge of a figure by the words before it; `over 72 hours` is about that long."""
    if (about := _ABOUT.search(before)) and _BOUND.search(before[: about.start()]):
        return "bound"  # up to about 40
    if about or (unit == "s" and re.search(r"\bover $", before)):
        return "about"
    return "bound" if _BOUND.search(before) else ""


def _short(power: str) -> bool:
    return bool(power) and len(power) < 16


def _scale(unit: re.Match[str] | None) -> tuple[float, str, float]:
    """(factor to the base, name of the unit, how much larger the other reading of it is)."""
    if unit is None:
        return 1.0, "", 1.0
    if unit["points"] or unit["percent"] or unit["times"]:
        return 1.0, "points" if unit["points"] else "%" if unit["percent"] else "x", 1.0
    if unit["bytes"]:
        return _BYTES[unit["bytes"]], "bytes", _BINARY.get(unit["bytes"], 1.0)
    if unit["time"]:
        return _TIMES[unit["time"]], "s", 1.0
    if unit["flops"]:
        return _FLOPS[unit["flops"]], "flops", 1.0
    return _MAGNITUDES[unit["size"]], "", 1.0


def _loosen(value: float, half: float, digits: str, *, is_count: bool) -> Range:
    """Room for digits that were cut instead of rounded, and for counts that end in zeros."""
    if not is_count:
        cut = 1.99 * half
        return Range(value - half, value + cut) if value >= 0 else Range(value - cut, value + half)
    zeros = len(digits) - len(digits.rstrip("0"))
    return around(value, min(0.5 * 10.0**zeros, 0.025 * value) if zeros >= 2 and value >= 1000 else 0.0)


def _significant(digits: str) -> float:
    """The unit of the last digit that is not a zero of a whole number, as a factor of its last digit."""
    return 1.0 if "." in digits else 10.0 ** min(len(digits) - len(digits.rstrip("0")), 20) / 2


def _durations(text: str) -> Iterator[Figure]:
    """Durations of several parts: 2 h 30 min, 3 min 24 s, 1:02:03."""
    for match in _DAYS.finditer(text):
        yield _duration(match, 86400 * int(match[1][:6]) + 3600 * int(match[2][:6]), 1800)
    for match in _LONG.finditer(text):
        if match[1] or match[2] or match[4]:
            days, hours, minutes = (int((match[at] or "0")[:6]) for at in (1, 2, 3))
            seconds = float((match[4] or "0")[:12])
            half = 0.5 if match[4] else 30
            yield _duration(match, 86400 * days + 3600 * hours + 60 * minutes + seconds, half)
    for match in _CLOCK.finditer(text):
        if match[3]:
            yield _duration(match, 3600 * int(match[1]) + 60 * int(match[2]) + int(match[3]), 0.5)


def _duration(match: re.Match[str], value: float, half: float) -> Figure:
    before = match.string[max(0, match.start() - 16) : match.start()]
    hedge = _hedge(before, "s")
    loose = max(2 * half, 0.1 * value if hedge == "about" else 0)
    return Figure(
        text=match[0].strip(), value=value, tight=around(value, half), loose=around(value, loose), unit="s",
        hedge=hedge, start=match.start(), end=match.end(),
    )  # fmt: skip


def _ranges(text: str, found: list[Figure]) -> list[Figure]:
    """The figures, with both ends of a range such as 4-6 marked, the first in the unit of the second."""
    for at in range(len(found) - 1):
        first, second = found[at], found[at + 1]
        between = text[first.end : second.start]
        is_difference = between.strip() in ("-", "–") and between.startswith(" ")
        if (
            len(between) < 12
            and not is_difference
            and _BETWEEN.fullmatch(between)
            and not _is_change(text, first, between)
        ):
            for index, figure in ((at, first), (at + 1, second)):
                found[index] = replace(figure, hedge="range")
    return found


def _is_change(text: str, first: Figure, between: str) -> bool:
    """True of `from 3 to 5`, which names two values."""
    return between.strip().lower() == "to" and bool(re.search(r"\bfrom\s$", text[: first.start][-6:], re.I))

"""Verdicts on figures: what was claimed, what follows from the other figures, and what would fit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.verify.facts import Fact
from etude.verify.names import SETTINGS
from etude.verify.quantities import Figure, magnitude_of, printed
from etude.verify.ranges import Range

CONTRADICTS, CONFIRMED, UNSETTLED = "contradicts", "confirmed", "cannot be settled"


@dataclass(frozen=True)
class Finding:
    """A verdict on one figure or sentence of a document.

    rule      the name of the rule, as docs/verify.md lists it
    quoted    the figure or the words, as printed
    why       the arithmetic, in words and numbers
    fits      the value that would fit, "" where none is known
    examined  the places (line, text) of the figures that were looked at
    factor    what the figure would have to be multiplied by to fit, 0 where that says nothing
    """

    verdict: str
    rule: str
    line: int
    quoted: str
    why: str
    fits: str = ""
    examined: tuple[tuple[int, str], ...] = ()
    factor: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("verdict", "rule", "line", "quoted", "why", "fits")
        return {name: getattr(self, name) for name in names} | {
            "figures": [list(each) for each in self.examined]
        }


@dataclass(frozen=True)
class Reading:
    """A value that follows from other figures in one way of reading them.

    text   its arithmetic; tight, loose  its range as for a figure; facts  the figures it comes from
    scale  what a value is divided by to print it in the claimed unit
    """

    text: str
    tight: Range
    loose: Range
    facts: tuple[Fact, ...] = ()


def reading(text: str, formula: Callable[..., Range], *facts: Fact, slack: float = 0.0) -> Reading:
    """The reading by a formula over ranges; slack widens what may be off, as a share."""
    tight = formula(*[_input(fact) for fact in facts])
    loose = formula(*[_input(fact) if _is_exact(fact) else fact.figure.loose for fact in facts])
    return Reading(text, tight, loose.widen(slack) if slack else loose, facts)


def judge(rule: str, claimed: Fact, readings: Sequence[Reading], *, any_confirms: bool = False) -> Finding:
    """The verdict on a figure by what follows: the first reading is the usual one, the others are possible.

    It contradicts if it fits none; it is confirmed if it fits the first, or any with `any_confirms`.
    """
    figure = claimed.figure
    fitting = [each for each in readings if figure.tight.meets(each.tight)]
    close = [each for each in readings if figure.loose.meets(each.loose)]
    first = readings[0]
    if fitting and (any_confirms or fitting[0] is first):
        verdict, why = CONFIRMED, fitting[0].text
    elif close:
        verdict, why = UNSETTLED, _both(first, close[0], figure)
    else:
        verdict, why = CONTRADICTS, "; or ".join(_shown(each, figure) for each in readings[:3])
    places = ((claimed.line, figure.text), *((fact.line, fact.figure.text) for fact in _facts(readings)))
    fits = "" if verdict == CONFIRMED else _fit(first.tight, figure)
    if verdict == CONFIRMED:
        why = _shown(fitting[0], figure)
    return Finding(
        verdict, rule, claimed.line, _quote(claimed), why, fits=fits, examined=tuple(dict.fromkeys(places)),
        factor=first.tight.middle / figure.value if figure.value else 0.0,
    )  # fmt: skip


def note(
    verdict: str, rule: str, line: int, quoted: str, why: str, *, fits: str = "", facts: Iterable[Fact] = ()
) -> Finding:
    """A verdict that is no comparison of a figure with a range."""
    places = tuple((fact.line, fact.figure.text) for fact in facts)
    return Finding(verdict, rule, line, quoted, why, fits=fits, examined=places)


def in_unit(value: float, figure: Figure) -> str:
    """A value printed in the unit of a figure."""
    units = {"%": " %", "points": " points", "x": "x"}
    if figure.unit in units:
        return f"{printed(value)}{units[figure.unit]}"
    if figure.unit == "s":
        return _duration(value)
    if figure.unit == "bytes":
        return f"{printed(value / 1e9)} GB ({printed(value / 2**30)} GiB)"
    if figure.unit == "flops":
        return f"{printed(value / 1e12)} TFLOP/s"
    factor, sign = magnitude_of(figure.text)
    return f"{printed(float(f'{value / factor:.5g}'))} {sign}" if sign else printed(value)


def _both(first: Reading, second: Reading, figure: Figure) -> str:
    if first is second:
        return f"{_shown(first, figure)}: it fits only if figures were cut or rounded more than they show"
    return f"{_shown(first, figure)}; read otherwise {_shown(second, figure)}"


def _shown(each: Reading, figure: Figure) -> str:
    return f"{each.text} = {_print_as(each.tight, figure)}"


def _print_as(found: Range, figure: Figure) -> str:
    low, high = in_unit(found.low, figure), in_unit(found.high, figure)
    if low == high or found.high - found.low < 0.002 * abs(found.middle):
        return in_unit(found.middle, figure)
    return f"{low} to {high}"


def _fit(found: Range, figure: Figure) -> str:
    """The value that would have fitted, "about" where the other figures leave it open."""
    is_open = found.high - found.low > 0.002 * abs(found.middle)
    return (
        f"about {in_unit(float(f'{found.middle:.3g}'), figure)}" if is_open else in_unit(found.middle, figure)
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 172_800), ("h", 7200), ("min", 120)):
        if seconds >= length:
            return f"{printed(seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{printed(seconds)} s"


def _quote(claimed: Fact) -> str:
    label = claimed.label.strip(" :=(")
    return (
        f"{label} {claimed.figure.text}".strip()
        if label.lower() not in claimed.figure.text.lower()
        else claimed.figure.text
    )


def _facts(readings: Sequence[Reading]) -> list[Fact]:
    return [fact for each in readings for fact in each.facts]


def _input(fact: Fact) -> Range:
    return fact.figure.exact if fact.name in SETTINGS else fact.figure.tight


def _is_exact(fact: Fact) -> bool:
    """True of a setting and of a count that was not rounded."""
    figure = fact.figure
    return not figure.hedge and (fact.name in SETTINGS or figure.tight.low == figure.tight.high)

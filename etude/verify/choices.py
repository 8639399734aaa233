"""The values that a quantity may have beside a figure, the nearest first."""

from typing import NamedTuple

from etude.verify.facts import Fact, Facts
from etude.verify.verdicts import Reading, reading

_NEAR = 2  # sentences of a paragraph, or items of a list, before a figure
_MOST = 8


class Choice(NamedTuple):
    """A value that a quantity may have.

    is_firm  true of the nearest one, if nothing as near has another value
    is_near  true of one that stands in the same row, column or sentence, or shortly before
    """

    reading: Reading
    is_firm: bool
    is_near: bool = True


def choices(facts: Facts, fact: Fact, *names: str) -> list[Choice]:
    """The values of these names beside a figure, found once."""
    key = (id(fact), names)
    if key not in facts.chosen:
        facts.chosen[key] = _choices(facts, fact, *names)
    return facts.chosen[key]


def _choices(facts: Facts, fact: Fact, *names: str) -> list[Choice]:
    """The values of these names: in the same place, then shortly before, then anywhere."""
    own = [each for name in names for each in facts.beside(fact, name) if each.is_value]
    near = facts.shortly_before(fact, names, _NEAR) if not own else []
    chosen = facts.near(fact, *names)
    chosen = chosen or next((each for name in names if (each := facts.typical(name))), None)
    usable = [each for name in names for each in facts.anywhere(fact, name)]
    usable.sort(key=lambda each: (abs(each.line - fact.line), each.line > fact.line))
    first = own or near
    is_told = bool(own) or not any(facts.beside(fact, name) for name in names)  # else by a mark or a change
    firm = (
        first
        if first and len({each.value for each in first}) == 1
        else [chosen]
        if chosen and not first
        else []
    )
    firm = firm if is_told else []
    found: dict[float, Choice] = {}
    for each in (*firm, *first, *([chosen] if chosen else []), *usable):
        if each is not fact and each.value not in found and len(found) < _MOST:
            is_firm = bool(firm) and each.value == firm[0].value
            made = reading(each.figure.text, lambda value: value, each)
            found[each.value] = Choice(made, is_firm, any(each.value == one.value for one in first))
    return list(found.values())

"""Figures of a line for people: each number with the name before it, the unit behind it, in any layout."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from etude.watch.logs.names import Meaning, meaning_of, words_of
from etude.watch.logs.numbers import NUMBER, parse

_UNITS = (
    r"ms/step|s/step|us/step|ms|us|\u00b5s|seconds|secs?|s|%|[kKMGT]i?B"
    r"|tok(?:ens?)?/s(?:ec(?:ond)?)?|wps|[kKM]"
)
_NUMBER = re.compile(rf"(?<![\w.])(?P<digits>{NUMBER})(?:\s?(?P<unit>{_UNITS})(?![\w/]))?(?!\w)")
_WRAPPER = re.compile(r"(?:tensor|array|(?:np|numpy|torch|jnp)\.\w{1,20})\(\[?\s*$")
_NAME_END = re.compile(r"[\s:=\[(\"'#>~]+$")
_CUT = re.compile(r".*(?:[,|;:{}\t=]|\s{2}|\s[-\u2013\u2014]\s)", re.DOTALL)
# Words before a name that make it another figure, or one of another moment.
_OTHER = {
    "best", "min", "max", "minimum", "maximum", "lowest", "highest", "previous", "prev", "old", "target",
    "final", "aux", "auxiliary", "kl", "balance", "balancing", "router", "z", "policy", "value", "reg",
    "regularization", "contrastive", "adv", "disc", "gen", "l1", "commit", "param", "parameter", "weight",
    "initial",
}  # fmt: skip
_A_STEP = {"", "dt", "time", "step_time", "iter_time", "time_step", "step_avg"}
_SECONDS = {
    "ms": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "second": 1.0,
    "seconds": 1.0,
}
_BYTES = {"k": 10, "K": 10, "M": 20, "G": 30, "T": 40}
_MOST_WORDS, _LONGEST_NAME, _MOST_NUMBERS = 6, 200, 400


class Figure(NamedTuple):
    """A number of a line.

    name     as the line has it, or that of its unit; "" where it has none that is known
    between  the text since the number before
    """

    name: str
    meaning: Meaning | None
    value: float
    between: str


def figures_of(line: str) -> Iterator[Figure]:
    """The numbers of a line in order, each with its figure if the line names one that is known."""
    at = 0
    for _, found in zip(range(_MOST_NUMBERS), _NUMBER.finditer(line)):
        between, at = line[at : found.start()], found.end()
        unit = found["unit"] or ""
        value = parse(found["digits"], unit if unit in ("%", "k", "K", "M") else None)
        phrase = _phrase(between)
        name, value = _by_unit(phrase, unit, value) or (_named(phrase), value)
        yield Figure(name, meaning_of(name) if name else None, value, between)


def _phrase(between: str) -> str:
    """The words before a number, back to the separator that ends the figure before."""
    text = _NAME_END.sub("", _WRAPPER.sub("", between[-_LONGEST_NAME:]))
    cut = _CUT.match(text)
    return "" if text.endswith("-") else text[cut.end() if cut else 0 :].strip(" \"'()[]<>")


def _by_unit(phrase: str, unit: str, value: float) -> tuple[str, float] | None:
    """The figure that a unit tells, in units of `Point`: a rate, time of a step, memory; "" for others."""
    words = set(words_of(phrase))
    if unit.startswith("tok") or unit == "wps":
        return "tokens_per_second", value
    if (second := unit.removesuffix("/step")) in _SECONDS:
        name, known = "_".join(words_of(phrase)), meaning_of(phrase)
        is_wait = known is not None and known.figure == "wait_seconds"
        is_step = unit != second or (name in _A_STEP and (second == "ms" or name not in ("", "time")))
        if is_wait or is_step or (known is not None and known.figure == "seconds"):
            return "data_time" if is_wait else "seconds", value * _SECONDS[second]
        return "", value
    if unit.endswith("B"):
        power = 2.0 ** _BYTES[unit[0]] if "i" in unit else 10.0 ** (_BYTES[unit[0]] // 10 * 3)
        is_memory = words & {"memory", "mem", "vram", "rss"} and not words & {"max", "peak", "reserved"}
        return "memory_bytes" if is_memory else "", value * power
    return None


@lru_cache(maxsize=4096)
def _named(phrase: str) -> str:
    """The longest end of a phrase that names a figure."""
    words = phrase.split()[-_MOST_WORDS:]
    for start in range(len(words)):
        name = " ".join(words[start:])
        meaning = meaning_of(name)
        if meaning is None or (meaning.figure in ("metric", "memory_bytes") and start < len(words) - 1):
            continue
        is_other = start > 0 and _OTHER & set(words_of(words[start - 1]))
        return "" if is_other else name
    return ""

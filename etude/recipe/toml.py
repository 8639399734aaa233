"""The text of a recipe: parsed as TOML within limits, with the line of each key, and written."""

import copy
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from etude.errors import Problem, RecipeError
from etude.text import shorten

_MOST_LEVELS = 32  # of sections and lists within each other; a recipe has five
_MOST_PARTS = 20_000  # lines, keys and values, so that each text is parsed within a second
# Strings and comments of TOML. A string that nobody closed goes on to its end, so that each character is read
# once.
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.?|"(?!""))*+"{0,5}|"(?:[^"\\\n]|\\[^\n]?)*+"?'''
    r"""|'''(?:[^']|'(?!''))*+'{0,5}|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
_WORD = r"[A-Za-z0-9_-]+"


def parse(text: str, file: str) -> dict[str, Any]:
    """The values of a recipe. Raises: RecipeError if it is not valid TOML, too deep, too long, or empty."""
    is_long = (
        sum(map(text.count, "\n\"'")) > 2 * _MOST_PARTS
    )  # which is quick to say: a string has two quotes
    masked = "" if is_long else _masked(text)
    if _levels(masked) > _MOST_LEVELS:
        raise RecipeError([f"{file}: not valid here: values are nested too deeply; a recipe has few levels"])
    if is_long or _parts(masked) > _MOST_PARTS:
        raise RecipeError([f"{file}: over {_MOST_PARTS:,} lines, keys and values; a recipe is a short file"])
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r"\(at line (\d+), column \d+\)|\(at end of document\)", message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        what = message[: place.start()].strip() if place else message
        if "overwrite" in what or "twice" in what:
            what += " (a key or section is given twice; keep one)"
        raise RecipeError([Problem(f"{file}:{line}:", f"not valid TOML: {what}", None, line)]) from None
    except (RecursionError, ValueError) as error:
        what = "values are nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        raise RecipeError([f"{file}: not valid TOML: {what}"]) from None
    if not data:
        raise RecipeError([f"{file}: the recipe is empty; it needs at least `name` and one [[data.train]]"])
    return data


def dump(values: Mapping[str, Any]) -> str:
    """Values as TOML: single ones first, then each section, and each entry of a list of sections."""
    return "\n".join(_lines(values, "")) + "\n"


def _lines(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    sections = {}
    for name, value in values.items():
        is_list = isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
        if isinstance(value, dict) or is_list:
            sections[name] = value
        else:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in sections.items():
        path = prefix + _key(name)
        for each in [value] if isinstance(value, dict) else value:
            yield ""
            yield f"[{path}]" if isinstance(value, dict) else f"[[{path}]]"
            yield from _lines(each, f"{path}.")


def _key(name: str) -> str:
    return name if re.fullmatch(_WORD, name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    raise TypeError(f"TOML has no {type(value).__name__}")


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def count_parts(text: str) -> int:
    """About the number of lines, keys and values of a text of TOML, which its parser takes time for."""
    return _parts(_masked(text))


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`; a value that is no TOML is a string. Raises: RecipeError."""
    name, sign, value = text.partition("=")
    name = name.strip().removeprefix("--")
    if not sign or not re.fullmatch(rf"{_WORD}(\.{_WORD}){{0,{_MOST_LEVELS}}}", name):
        raise RecipeError([
            f"override {shorten(repr(text), 80)} is not of the form key=value; write for example "
            "optim.learning_rate=2e-4"
        ])  # fmt: skip
    if any("\ud800" <= sign <= "\udfff" for sign in value):  # as which Python takes a byte that is no UTF-8
        raise RecipeError(
            [f"{name} (override) is {shorten(repr(value), 60)}, which is not UTF-8 text; give it in UTF-8"]
        )
    line = f"value = {value}"
    if "\n" in value or _levels(_masked(line)) > _MOST_LEVELS:
        return name, value
    try:
        return name, tomllib.loads(line)["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return name, value


def toml_text(value: Any) -> str:
    """A value as a recipe has it: `true`, `"text"`, `["a", "b"]`, `0.1`."""
    if isinstance(value, bool | str | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


class Locator:
    """Finds the line of a key in the text of a recipe, for messages."""

    def __init__(self, text: str, file: str, overrides: dict[str, Any]) -> None:
        self.file = file
        self._text = text
        self._places = dict.fromkeys(overrides, "override")

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """The line of each key, found when there is a message that needs it."""
        lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        counts: dict[tuple[str, ...], int] = {}
        depth = 0  # of brackets that an earlier line opened: what follows is no key
        for number, (line, masked) in enumerate(
            zip(self._text.split("\n"), _masked(self._text).split("\n")), 1
        ):
            if depth == 0 and (header := re.match(r"\s*+\[(\[?)([^\]]*+)\]", masked)):
                table = ()
                *parents, last = _split_key(line[header.start(2) : header.end(2)])
                for part in parents:
                    table = (*table, part)
                    table += (str(counts[table]),) if table in counts else ()
                table = (*table, last)
                if header[1]:
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, str(counts[table]))
                for end in range(1, len(table) + 1):
                    lines.setdefault(table[:end], number)
            elif depth == 0 and "=" in masked:
                lines.setdefault(table + _split_key(line[: masked.index("=")]), number)
            depth += sum(masked.count(sign) for sign in "[{") - sum(masked.count(sign) for sign in "]}")
        return lines

    def over(self, places: Mapping[str, str]) -> "Locator":
        """The same file under values that stand elsewhere, each with its place by dotted key."""
        other = copy.copy(self)
        other._places = {**self._places, **places}
        return other

    def problem(self, keys: tuple[str, ...], text: str) -> Problem:
        """A problem of a key in words that follow its name."""
        lines = (self._lines.get(keys[:end]) for end in range(len(keys), 0, -1))
        return Problem(self.name(keys), text, ".".join(keys), next(filter(None, lines), None))

    def name(self, keys: tuple[str, ...]) -> str:
        """`optim.learning_rate (recipe.toml:31)`, or the nearest enclosing place that has a line."""
        dotted = ".".join(keys)
        shown = shorten(dotted, 80) or '""'
        for end in range(len(keys), 0, -1):
            if place := self._places.get(".".join(keys[:end])):
                return f"{shown} ({place})"
        for end in range(len(keys), 0, -1):
            if line := self._lines.get(keys[:end]):
                return f"{shown} ({self.file}:{line})"
        within = (place for each, place in self._places.items() if each.startswith(f"{dotted}."))
        return f"{shown} ({next(within, self.file)})"


def _masked(text: str) -> str:
    """TOML with each character of a string but its line ends as `s`, and without comments."""

    def mask(found: re.Match[str]) -> str:
        if found[0].startswith("#"):
            return ""
        return "\n".join("s" * len(line) for line in found[0].split("\n"))

    return _STRING.sub(mask, text)


def _parts(masked: str) -> int:
    return sum(map(masked.count, "=,.[{\n"))


def _levels(masked: str) -> int:
    """The most brackets that are open at once, or parts of one dotted key, without parsing."""
    most = depth = 0
    for bracket in re.findall(r"[\[\]{}]", masked):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    dots = max(part.count(".") for part in re.split(r"[=,{}\[\]\n]", masked))
    return max(most, dots)


def _split_key(text: str) -> tuple[str, ...]:
    """The parts of a dotted key of TOML."""
    if re.fullmatch(r"[A-Za-z0-9_.\s-]+", text):
        return tuple(part.strip() for part in text.split("."))
    try:
        value, parts = tomllib.loads(f"{text.strip()} = 0"), []
    except ValueError:
        return (text,)
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)

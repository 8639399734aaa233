"""Sentences for what the schema refuses: where, what is wrong, what is expected, what to do."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etude.errors import Problem
from etude.recipe.keys import model_within, near_keys
from etude.recipe.notify import Notify
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator, toml_text

_WHOLE = ("int_type", "int_from_float")
_WORDS = ("literal_error", "none_required")  # problems of a value that is not the word it could be
_LONGEST_WORD = 20  # characters of a word that is shown though it may be a secret
# Sections by which people look for the start of ranks.
_LAUNCHERS = {("launch",), ("launcher",), ("ranks",), ("distributed",), ("torchrun",), ("ray",)}
_SECRET = "tokens, addresses and recipients come from variables of the environment (docs/notifications.md)"


def group_by_keys(problems: Sequence[Any], data: Any) -> dict[tuple[str, ...], list[Any]]:
    """The pydantic problems of each key; of a key that could be a word, those within what it is instead."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for problem in problems:
        found.setdefault(find_keys(problem, data), []).append(problem)
    above = {keys[:depth] for keys in found for depth in range(len(keys))}
    for keys in list(found):
        if keys in above and all(problem["type"] in _WORDS for problem in found[keys]):
            del found[keys]
    return found


def describe(
    keys: tuple[str, ...], problems: Sequence[Any], locator: Locator, root: type[BaseModel] = Recipe
) -> Problem:
    """The pydantic problems of a key as: where, what is wrong, what was expected, what to do.

    A key that may be a word or something else has one of each; the something else is said first. root: the
    section that the file is.
    """
    noun = "recipe" if root is Recipe else "sweep"
    words = [problem for problem in problems if problem["type"] in _WORDS]
    others = [problem for problem in problems if problem not in words]
    fractions = [problem for problem in others if problem["type"] not in _WHOLE]  # where both may stand
    problem = [*fractions, *others, *problems][0]
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        advice = _advise(keys, root, is_section=isinstance(given, dict))
        return locator.problem(keys, f"is not a key of a {noun}; {advice}")
    if kind == "missing":
        line = _example_line(keys, root)
        return locator.problem(keys, f"is missing; every {noun} needs it, for example `{line}`")
    also = [_expected(word) for word in words if word is not problem]
    expected = ", or ".join([_expected(problem), *(each.removeprefix("it must be ") for each in also)])
    field = _field(keys, root)
    near = _nearest(problem, given)
    example = near or (field.examples[0] if field and field.examples else None)
    advice = "" if example is None else f"; try {_toml_value(example)}"
    return locator.problem(keys, f"is {_shown(keys, given)}; {expected}{advice}")


def _shown(keys: tuple[str, ...], given: Any) -> str:
    """The value that was given; of a channel none that may hold a secret."""
    if keys[0] != "notify" or (len(str(given)) <= _LONGEST_WORD and not isinstance(given, dict | list)):
        return _toml_value(given)
    return "a table" if isinstance(given, dict) else "a list" if isinstance(given, list) else "a long word"


def _expected(problem: Any) -> str:
    known = {
        "greater_than": "it must be above {gt}",
        "greater_than_equal": "it must be at least {ge}",
        "less_than": "it must be below {lt}",
        "less_than_equal": "it must be at most {le}",
        "finite_number": "it must be a finite number",
        "string_pattern_mismatch": (
            "it must be 1 to 64 lower case letters, digits, '.', '_' or '-', and start with a letter or digit"
        ),
        "literal_error": "it must be {expected}",
        "none_required": "it must be 'none'",
        "int_type": "it must be a whole number",
        "int_from_float": "it must be a whole number",
        "float_type": "it must be a number",
        "bool_type": "it must be true or false",
        "string_type": "it must be a text in quotes",
        "list_type": "it must be a list",
        "model_type": "it must be a [section]",
        "dict_type": "it must be a [section]",
        "too_short": "it needs at least {min_length} entry",
    }.get(problem["type"])
    if known is None:
        message = str(problem["msg"]).removeprefix("Value error, ")
        return message[:1].lower() + message[1:]
    return known.format(**{name: _bound(value) for name, value in problem.get("ctx", {}).items()})


def _nearest(problem: Any, given: Any) -> str | None:
    """The word that a wrong one was meant to be, where a key holds one of some words."""
    words = re.findall("'([^']*)'", problem.get("ctx", {}).get("expected", ""))
    near = difflib.get_close_matches(given[:100], words, n=1) if isinstance(given, str) else []
    return next(iter(near), None)


def _bound(value: Any) -> str:
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def find_keys(problem: Any, data: Any) -> tuple[str, ...]:
    """The keys that lead to a problem, without what pydantic adds for the members of a union."""
    keys: list[str] = []
    for part in problem["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]
            keys.append(str(part))
    is_missing = problem["type"] == "missing" or not keys
    return (*keys, str(problem["loc"][-1])) if is_missing and problem["loc"] else tuple(keys)


def advise_unknown(key: str) -> str:
    """The advice on a dotted key that a recipe does not have; "" for a key or section that it has."""
    keys = tuple(key.split("."))
    for end in range(1, len(keys) + 1):
        if _field(keys[:end], Recipe) is None and _section(keys[:end], Recipe) is None:
            return _advise(keys[:end], Recipe, is_section=end < len(keys))
    return ""


def _advise(keys: tuple[str, ...], root: type[BaseModel], *, is_section: bool) -> str:
    """The key that an unknown one was meant to be, by its last part if it is of the same section."""
    if root is Recipe and keys in _LAUNCHERS:
        return (
            "ranks are started by --devices (train.devices) or torchrun, see docs/clusters.md; leave it out"
        )
    model, section = _section(keys[:-1], root), ".".join(keys[:-1])
    known = [info.alias or name for name, info in model.model_fields.items()] if model else []
    near = (
        near_keys(section, keys[-1], known, is_section=is_section)
        if root is Recipe
        else difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    )
    near = [key.removeprefix(f"{section}.") for key in near]
    if model is Notify and not difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.7):
        return f"{_SECRET}; known here: {', '.join(known)}"
    return f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known)}"


def _section(keys: tuple[str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    is_named = False  # what follows a section of sections is a name
    for part in keys:
        if part.isdecimal() or is_named:
            is_named = False
            continue
        info = model.model_fields.get(part) if model else None
        model = model_within(info.annotation) if info else None
        is_named = info is not None and get_origin(info.annotation) is dict
    return model


def _field(keys: tuple[str, ...], root: type[BaseModel]) -> FieldInfo | None:
    model = _section(keys[:-1], root)
    fields = {info.alias or name: info for name, info in model.model_fields.items()} if model else {}
    return fields.get(keys[-1]) if keys else None


def _example_line(keys: tuple[str, ...], root: type[BaseModel]) -> str:
    if keys == ("data",) or keys == ("data", "train"):
        return '[[data.train]] path = "corpus.jsonl"'
    if keys == ("tiers",):
        return '[[tiers]] name = "small"'
    field = _field(keys, root)
    return f"{keys[-1]} = {_toml_value(field.examples[0] if field and field.examples else '...')}"


def _toml_value(value: Any) -> str:
    text = toml_text(value)
    most = 80 if isinstance(value, str | list | dict) else 40
    return text if len(text) <= most else text[: most - 3] + "..."

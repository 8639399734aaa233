"""The check that plain values from a file of ours have the types that their readers rely on."""

import functools
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin

from etude.text import kind_of

Check = Callable[[Any], Any]
_MOST = 2**63
_DEEPEST = 20


@dataclass(frozen=True)
class Object:
    """An object with the keys that it must have, and those that it may have; others may be there."""

    required: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def check(self) -> Check:
        known = {name: checker(each) for name, each in {**self.required, **self.optional}.items()}
        return _object(self.required, known, _anything)


def fit(value: Any, kind: Any) -> Any:
    """A value as its kind has it: "nan", "inf" and "-inf" are numbers where numbers stand.

    kind: int (0 and above), float, str, bool, None, Any, list[...], dict[str, ...], a union of these;
    Annotated[kind, check], whose check raises ValueError for what does not fit; an Object, [Object] or {str:
    Object}, or a tuple of kinds for a union.

    Raises: ValueError that says in a few words what stands there.
    """
    return checker(kind)(value)


def at_least(least: float, most: float = math.inf) -> Check:
    """A check for finite numbers from `least` to `most`."""

    def check(value: float) -> float:
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(
                f"{value} is no number from {least:g} on" + (f" to {most:g}" if most < math.inf else "")
            )
        return value

    return check


def one_of(*known: str | int) -> Check:
    """A check for what is one of some texts or numbers."""

    def check(value: str | int) -> str | int:
        if value not in known:
            raise ValueError(f"{_shown(value)} is none of {', '.join(map(str, known))}")
        return value

    return check


def matching(pattern: str) -> Check:
    """A check for texts that a regular expression matches whole."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{_shown(value)} does not match {pattern}")
        return value

    return check


def checker(kind: Any) -> Check:
    """The function that fits values to a kind."""
    if isinstance(kind, Object):
        return kind.check
    if isinstance(kind, tuple):
        return _union([checker(each) for each in kind])
    if isinstance(kind, list):
        return _list(checker(kind[0]))
    if isinstance(kind, dict):
        return _object((), {}, checker(kind[str]))
    return _plain(kind)


@functools.cache
def _plain(kind: Any) -> Check:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _chain([checker(inner[0]), *inner[1:]])
    if origin in (Union, types.UnionType):
        return _union([checker(each) for each in inner])
    if origin is list:
        return _list(checker(inner[0]))
    if origin is dict:
        return _object((), {}, checker(inner[1]))
    return {
        int: _whole, float: _number, Any: _anything, str: _exactly(str, "a text"),
        bool: _exactly(bool, "true or false"), None: _exactly(types.NoneType, "null"),
        types.NoneType: _exactly(types.NoneType, "null"),
    }[kind]  # fmt: skip


def _object(required: Iterable[str], known: Mapping[str, Check], other: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{_shown(value)} is no object")
        if lacking := [name for name in required if name not in value]:
            raise ValueError(f"it has no {lacking[0]}")
        return {name: _named(name, known.get(name, other), each) for name, each in value.items()}

    return check


def _union(checkers: list[Check]) -> Check:
    def check(value: Any) -> Any:
        problem = ""  # as text: an error holds this frame, which would hold the error, and so all that reads
        for one in checkers:
            try:
                return one(value)
            except ValueError as error:
                problem = problem or str(error)
        raise ValueError(problem)

    return check


def _chain(checks: list[Check]) -> Check:
    def check(value: Any) -> Any:
        for one in checks:
            value = one(value)
        return value

    return check


def _list(item: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"{_shown(value)} is no list")
        return [item(each) for each in value]

    return check


def _exactly(kind: type, what: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{_shown(value)} is not {what}")
        return value

    return check


def _anything(value: Any) -> Any:
    """Any value that is not nested so deeply that what walks through it fails."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return value


def _whole(value: Any) -> Any:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{_shown(value)} is no whole number from 0 on")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if type(value) is float or (type(value) is int and -_MOST < value < _MOST):
        return value
    raise ValueError(f"{_shown(value)} is no number")


def _named(name: str, item: Check, value: Any) -> Any:
    try:
        return item(value)
    except ValueError as error:
        raise ValueError(f"{name[:40]}: {error}" if len(str(error)) < 120 else str(error)) from None


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else kind_of(value)
    return text if len(text) <= 40 else f"{text[:39]}…"

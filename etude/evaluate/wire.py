"""Calls between the interpreter that holds a sample and the one that holds its tests, over two pipes.

Plain data goes by value, so that what the tests compare is theirs: an object of the sample with an `__eq__`
of its own equals no data. Anything else goes as a reference, which the other side asks to do things. Lists,
dicts, sets and arrays that a call changes are changed for the caller too, and one that it returns is the
caller's own. Nothing is unpickled.
"""

import builtins
import json
import operator
import os
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from etude.evaluate.arrays import is_array, is_number, read_array, write_array

_MOST_BYTES = 32 << 20
_MOST_DEPTH = 200
_LARGEST_PLAIN = 1 << 53
_KEYS: type[Any] = type({}.keys())
_ITEMS: type[Any] = type({}.items())
_SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple, "list": list, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
_WRITTEN: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "bytearray": (bytearray, bytearray.hex, bytearray.fromhex),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "decimal": (Decimal, Decimal.__str__, Decimal),
    "fraction": (Fraction, Fraction.__str__, Fraction),
    "complex": (complex, lambda z: [z.real, z.imag], lambda parts: complex(*parts)),
    "timedelta": (timedelta, lambda d: [d.days, d.seconds, d.microseconds], lambda parts: timedelta(*parts)),
    "range": (range, lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "get": getattr, "set": setattr, "iter": iter, "next": next, "len": len, "str": str, "repr": repr,
    "hash": hash, "bool": bool, "isinstance": isinstance, "getitem": operator.getitem,
    "setitem": operator.setitem, "eq": operator.eq, "lt": operator.lt, "le": operator.le,
}  # fmt: skip
# Types by name, as an argument of `isinstance`.
_TYPES: dict[str, type] = {
    repr(each): each
    for each in (int, float, str, bool, complex, bytes, list, tuple, set, frozenset, dict, type(None), object)
}
# The sample may ask no more of the objects of the tests.
_OF_TESTS = {"call", "iter", "next", "len", "getitem", "get", "set"}


class EndedError(Exception):
    """The other side has ended, or does not keep to the protocol."""


class Remote:
    """An object of the other side; it equals and orders with others of that side alone."""

    def __init__(self, peer: "Peer", key: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_key", key)

    def _do(self, operation: str, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask(operation, self, *arguments, **named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._do("call", *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self._do("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._do("set", name, value)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._do("iter")
        return iter(iterator) if not isinstance(iterator, Remote) else _Iterator(iterator)

    def __next__(self) -> Any:
        return self._do("next")

    def __len__(self) -> int:
        return int(self._do("len"))

    def __bool__(self) -> bool:
        return bool(self._do("bool"))

    def __getitem__(self, key: Any) -> Any:
        return self._do("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._do("setitem", key, value)

    def __str__(self) -> str:
        return str(self._do("str"))

    def __repr__(self) -> str:
        return str(self._do("repr"))

    def __hash__(self) -> int:
        return hash(self._do("hash"))

    def __eq__(self, other: object) -> bool:
        return self._do("eq", other) is True if isinstance(other, Remote) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._do("lt", other) is True if isinstance(other, Remote) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self._do("le", other) is True if isinstance(other, Remote) else NotImplemented

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and self._peer.ask("isinstance", instance, self) is True


class _Iterator:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def __iter__(self) -> "_Iterator":
        return self

    def __next__(self) -> Any:
        return next(self._remote)


class Peer:
    """One end of the pipes.

    is_guarded: the other side is a sample, which may do to objects of this one what calls of it need.
    """

    def __init__(self, read: int, write: int, *, is_guarded: bool) -> None:
        self._read, self._write, self._is_guarded = read, write, is_guarded
        self._mine: dict[int, Any] = {}
        self._keys: dict[int, int] = {}
        self._theirs: dict[int, Remote] = {}
        self._errors: dict[str, type[Exception]] = {}
        self._find: Callable[[str], Any] | None = None

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Let the other side do something. Raises: what it raised there, or EndedError."""
        sent = [self.encode(argument) for argument in arguments]
        pairs = {name: self.encode(value) for name, value in named.items()}
        self.send({"do": operation, "with": sent, "named": pairs})
        while "do" in (answer := self.receive()):
            self._answer(answer)
        for place, value in (answer.get("changed") or {}).items():
            _restore(arguments[_place(place, arguments)], self.decode(value))
        if "raised" in answer:
            raise self._error(*answer["raised"])
        if "same" in answer:
            return arguments[_place(answer["same"], arguments)]
        return self.decode(answer["value"])

    def serve(self, find: Callable[[str], Any]) -> None:
        """Answer until the other side ends. find: what the other side calls by its name."""
        self._find = find
        while True:
            try:
                asked = self.receive()
            except EndedError:
                return
            self._answer(asked)

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Raises: EndedError."""
        data = json.dumps(message).encode()
        data = len(data).to_bytes(8, "little") + data
        try:
            while data:
                data = data[os.write(self._write, data) :]
        except OSError as error:
            raise EndedError from error

    def receive(self) -> dict[str, Any]:
        """The next message. Raises: EndedError."""
        size = int.from_bytes(self._take(8), "little")
        if size > _MOST_BYTES:
            raise EndedError(f"a value of more than {_MOST_BYTES >> 20} MiB")
        try:
            message = json.loads(self._take(size))
        except (ValueError, RecursionError) as error:
            raise EndedError("no message of the protocol") from error
        if not isinstance(message, dict):
            raise EndedError("no message of the protocol")
        return message

    def encode(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON."""
        if depth > _MOST_DEPTH:
            raise RecursionError("a value is nested too deeply")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            value = int.__pos__(value)
            return value if abs(value) < _LARGEST_PLAIN else {"int": hex(value)}
        if isinstance(value, float):
            return float.__pos__(value)
        if isinstance(value, dict):
            items = [[self.encode(part, depth + 1) for part in pair] for pair in dict.items(value)]
            return {"dict": items}
        if isinstance(value, _ITEMS):
            return {"items": [[self.encode(part, depth + 1) for part in pair] for pair in value]}
        if isinstance(value, _KEYS):
            return {"keys": [self.encode(part, depth + 1) for part in value]}
        if isinstance(value, tuple) and isinstance(names := getattr(type(value), "_fields", None), tuple):
            parts = [self.encode(part, depth + 1) for part in tuple.__iter__(value)]
            return {"named": [type(value).__name__, list(names), parts]}
        if is_array(value) or is_number(value):
            return {"array": write_array(value)}
        for name, kind in _SEQUENCES.items():
            if isinstance(value, kind):  # type: ignore[arg-type]
                return {name: [self.encode(part, depth + 1) for part in kind.__iter__(value)]}  # type: ignore[attr-defined]
        for name, (written, write, _) in _WRITTEN.items():
            if isinstance(value, written):
                return {name: write(value)}
        if isinstance(value, type) and _TYPES.get(type.__repr__(value)) is value:
            return {"type": repr(value)}
        if isinstance(value, type) and issubclass(value, Exception):
            return {"error": _names_of(value)}
        if isinstance(value, Remote):
            return {"yours": object.__getattribute__(value, "_key")}
        key = self._keys.setdefault(id(value), len(self._keys))
        self._mine[key] = value
        return {"mine": key}

    def decode(self, value: Any) -> Any:
        """The value of a JSON that the other side wrote. Raises: EndedError if it is none."""
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise EndedError("no value of the protocol")
            return value
        try:
            ((name, written),) = value.items()
            if name == "dict":
                return {self.decode(key): self.decode(item) for key, item in written}
            if name == "items":
                return {self.decode(key): self.decode(item) for key, item in written}.items()
            if name == "keys":
                return dict.fromkeys(self.decode(part) for part in written).keys()
            if name == "named":
                return _named(written[0], tuple(written[1]))(*map(self.decode, written[2]))
            if name == "array":
                return read_array(*written)
            if name in _SEQUENCES:
                return _SEQUENCES[name](self.decode(part) for part in written)
            if name == "int":
                return int(written, 16)
            if name == "type":
                return _TYPES[written]
            if name == "error":
                return self._error_class(written)
            if name == "yours":
                return self._mine[written]
            if name == "mine":
                return self._theirs.setdefault(int(written), Remote(self, int(written)))
            return _WRITTEN[name][2](written)
        except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise EndedError("no value of the protocol") from error

    def _answer(self, asked: dict[str, Any]) -> None:
        sent, arguments = asked.get("with") or [], []
        answer: dict[str, Any] = {}
        try:
            arguments = [self.decode(argument) for argument in sent]
            named = {name: self.decode(value) for name, value in (asked.get("named") or {}).items()}
            if self._is_guarded:
                _guard(asked["do"], arguments)
            is_name = asked["do"] == "find" and self._find is not None
            operation = self._find if is_name else _OPERATIONS[asked["do"]]
            assert operation is not None
            value = operation(*arguments, **named)
            same = next(
                (at for at, each in enumerate(arguments) if each is value and _can_change(each)), None
            )
            answer = {"value": self.encode(value)} if same is None else {"same": same}
        except EndedError:
            raise
        except BaseException as error:  # whatever foreign code raises
            answer = {"raised": [_names_of(type(error)), words_of(error)]}
        changed = {str(place): after for place, after in self._changes(sent, arguments)}
        if changed:
            answer["changed"] = changed
        self.send(answer)

    def _changes(self, sent: list[Any], arguments: list[Any]) -> Iterator[tuple[int, Any]]:
        for place, (before, argument) in enumerate(zip(sent, arguments)):
            if _can_change(argument):
                after = self.encode(argument)
                if after != before:
                    yield place, after

    def _error(self, names: list[str], words: str) -> Exception:
        try:
            return self._error_class(names)(str(words)[:2000])
        except TypeError:  # one that is made of more than words
            return RuntimeError(f"{names[:1]}: {str(words)[:2000]}")

    def _error_class(self, names: list[str]) -> type[Exception]:
        """An exception of Python by its name, or one that stands in for the sample's own."""
        name = str(names[0])[:100] if names else "Exception"
        known = [getattr(builtins, str(each), None) for each in names]
        ours = next((each for each in known if isinstance(each, type) and issubclass(each, Exception)), None)
        if ours is not None and ours.__name__ == name:
            return ours
        return self._errors.setdefault(name, type(name, (ours or RuntimeError,), {}))

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = os.read(self._read, min(size, 1 << 20))
            except OSError as error:
                raise EndedError from error
            if not part:
                raise EndedError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def words_of(error: BaseException) -> str:
    """The words of an error, whose class may be foreign."""
    try:
        return str(error)[:2000]
    except BaseException:  # the sample's own
        return ""


def _guard(operation: str, arguments: list[Any]) -> None:
    """Raises: PermissionError if a sample asks for more of the tests' objects than their use."""
    name = arguments[1] if operation in ("get", "set") and len(arguments) > 1 else ""
    is_own = operation not in ("get", "set") or type(arguments[0]).__module__ == "tests"
    if operation not in _OF_TESTS or not is_own or str(name).startswith("_"):
        raise PermissionError(f"the sample may not {operation} this of the tests")


def _can_change(value: Any) -> bool:
    return isinstance(value, (list, dict, set, deque, bytearray)) or is_array(value)


def _place(said: Any, arguments: tuple[Any, ...]) -> int:
    """The place of an argument that the other side names. Raises: EndedError if there is none."""
    try:
        return range(len(arguments))[int(said)]
    except (IndexError, ValueError, TypeError) as error:
        raise EndedError("no value of the protocol") from error


@cache
def _named(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def _names_of(kind: type) -> list[str]:
    return [each.__name__ for each in type.mro(kind)][:10]


def _restore(old: Any, new: Any) -> None:
    """Change a list, dict or set into what the call made of it."""
    if type(old) is not type(new) and not isinstance(old, type(new)):
        return
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif is_array(old):
        old[...] = new
    elif isinstance(old, (dict, set, deque)):
        old.clear()
        (old.extend if isinstance(old, deque) else old.update)(new)

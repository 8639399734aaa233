"""Steps and resources: most lines of a journal, of numbers only, and read many at once."""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, get_args

from pydantic_core import CoreSchema, SchemaValidator, core_schema

from etude.records.events import LAST_TIME, LONGEST_SECONDS, RARE, TIME, Number, Resource, Seconds, Step
from etude.records.ledger import Entry

_HEADS = (b'{"type": "step",', b'{"type": "resource",')
_TYPE_BYTES = len(_HEADS[0])  # so many bytes tell the type
_head = itemgetter(slice(_TYPE_BYTES))
_HINTS: dict[Any, CoreSchema] = {
    int: core_schema.int_schema(ge=0, lt=2**63, strict=True),
    bool: core_schema.bool_schema(strict=True),
    Number: core_schema.float_schema(gt=-(2**63), lt=2**63, allow_inf_nan=False, strict=True),
    Seconds: core_schema.float_schema(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False, strict=True),
    TIME: core_schema.float_schema(ge=0, le=LAST_TIME, allow_inf_nan=False, strict=True),
}


class _Flat:
    """One of the types whose lines hold numbers only; most lines are without those that are rare."""

    def __init__(self, event: type[Step | Resource]) -> None:
        hints = {"time": TIME, **event.__annotations__}
        self._rare = [name for name in event._fields if name in RARE]
        record = {
            name: core_schema.typed_dict_field(_schema(hint), required=name not in RARE)
            for name, hint in hints.items()
        }
        schema = core_schema.list_schema(core_schema.typed_dict_schema(record), fail_fast=True)
        self._records = SchemaValidator(schema)
        self._values = itemgetter(*event._fields)
        self._event = partial(tuple.__new__, event)  # as its constructor would, in half the time

    def read(self, lines: list[bytes], attempt: int) -> Iterator[Entry]:
        """The entries of lines of this type. Raises: ValueError if one is not as this version writes it."""
        records = self._validate(lines)
        events = map(self._event, map(self._values, records))
        return map(Entry._make, zip(events, map(itemgetter("time"), records), repeat(attempt)))

    def values(self, lines: list[bytes]) -> list[tuple[Any, ...]]:
        """The fields of lines of this type. Raises: as `read`."""
        return list(map(self._values, self._validate(lines)))

    def _validate(self, lines: list[bytes]) -> list[dict[str, Any]]:
        text = b"[%b]" % b",\n".join(lines)
        # One object a line: each begins and ends with a brace, and no string goes over its end.
        if text.count(b"{") != len(lines):
            raise ValueError("an object within a line")
        records: list[dict[str, Any]] = self._records.validate_json(text)
        # One that is unknown or there twice is one more colon than keys that were read, type and crc.
        if text.count(b":") != sum(map(len, records)) + 2 * len(lines):
            raise ValueError("another key")
        for record in records:
            for name in self._rare:
                record.setdefault(name)
        return records


def is_flat(line: bytes) -> bool:
    """True for a line that begins as a step or a resource does."""
    return line[:_TYPE_BYTES] in _TYPES


def others(lines: list[bytes]) -> list[int]:
    """The places of the lines that begin as neither a step nor a resource does, which are few."""
    if set(map(_head, lines)) <= _TYPES.keys():
        return []
    return [place for place, head in enumerate(map(_head, lines)) if head not in _TYPES]


def read(lines: list[bytes], attempt: int) -> list[Entry]:
    """The entries of flat lines. Raises: ValueError if one of them is not as this version writes it."""
    types = [line[:_TYPE_BYTES] for line in lines]
    found = {
        head: flat.read([line for line, its in zip(lines, types) if its == head], attempt)
        for head, flat in _TYPES.items()
    }
    return [next(found[head]) for head in types]


def read_values(lines: list[bytes], kind: type[Step | Resource]) -> list[tuple[Any, ...]]:
    """The fields of lines of one type, in the order of its event. Raises: as `read`."""
    return _TYPES[_HEADS[kind is Resource][:_TYPE_BYTES]].values(lines)


def is_step(line: bytes) -> bool:
    """True for a line that begins as a step does."""
    return line[:_TYPE_BYTES] == _HEADS[0]


def _schema(hint: Any) -> CoreSchema:
    if hint in _HINTS:
        return _HINTS[hint]
    return core_schema.nullable_schema(_HINTS[get_args(hint)[0]])


_TYPES = {head[:_TYPE_BYTES]: _Flat(event) for head, event in zip(_HEADS, (Step, Resource))}

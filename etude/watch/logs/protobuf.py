"""Fields of a protobuf message, without its schema; bytes that are none end the message."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_MOST_FIELDS = 64  # of a message whose fields are not repeated


class Field(NamedTuple):
    """A field of a message: its number, and a whole number, or the bytes of any other type."""

    number: int
    value: int | bytes


def fields_of(message: bytes, most: int = _MOST_FIELDS) -> Iterator[Field]:
    """The fields of a message in order. Raises: ValueError where the bytes are none, or have too many."""
    at = count = 0
    while at < len(message):
        count += 1
        if count > most:
            raise ValueError("more fields than expected")
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield Field(number, value)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("an unknown type of field")
        if at + size > len(message):
            raise ValueError("a field beyond the end")
        yield Field(number, message[at : at + size])
        at += size


def part(message: bytes, *path: int) -> bytes:
    """The bytes at a path of field numbers, each the last of its number; empty if there are none."""
    for number in path:
        found = [value for each, value in fields_of(message) if each == number and isinstance(value, bytes)]
        message = found[-1] if found else b""
    return message


def texts(message: bytes, number: int) -> list[str]:
    """The texts of a repeated field."""
    return [_text(value) for each, value in fields_of(message) if each == number and isinstance(value, bytes)]


def whole(message: bytes, number: int) -> int:
    """A signed whole number; 0 if it is not there."""
    found = [value for each, value in fields_of(message) if each == number and isinstance(value, int)]
    value = found[-1] if found else 0
    return value - 2**64 if value >= 2**63 else value


def unpack_floats(content: bytes, code: str) -> list[float]:
    """The numbers in bytes, each of the size of a code of `struct`; a rest is left out."""
    size = struct.calcsize(code)
    return [number for (number,) in struct.iter_unpack(f"<{code}", content[: len(content) // size * size])]


def _text(content: bytes) -> str:
    return content[:400].decode("utf-8", "replace")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(message):
            break
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number without an end")

"""The datastore of W&B, `run-*.wandb`: LevelDB's log of protobuf records, of which the history is read."""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from etude.errors import InputError
from etude.watch.logs.named import row_of
from etude.watch.logs.protobuf import fields_of, part, texts, whole
from etude.watch.logs.rows import MOST_ROWS, Row, Source

_HEAD = b":W&B"
_HEAD_BYTES = 7
_BLOCK_BYTES = 1 << 15
_PIECE = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LARGEST_RECORD = 1 << 22
_MOST_ITEMS = 10_000  # of a record
_MOST_BYTES, _A_VALUE = 128 << 20, 64  # of history; a piece and an item count as so many besides
_HISTORY, _ITEM, _KEY, _NESTED_KEY, _JSON = 2, 1, 1, 2, 16  # fields
_NUMBER, _INTEGER = 6, 5  # of an item whose value is no JSON


def is_datastore(head: bytes) -> bool:
    """True for the first bytes of a datastore of W&B."""
    return head.startswith(_HEAD)


def read_datastore(file: IO[bytes]) -> Source:
    """The history of a run from its datastore. Raises: InputError if there is too much."""
    source = Source("datastore of W&B", [])
    source.rows = rows = []
    looked_at = 0
    for record in _records(file):
        if record is None:
            source.notes.append(
                "the file ends in a torn or damaged record, which is left out with what follows"
            )
            break
        items = _items(record)
        if row := _row(items):
            rows.append(row)
        looked_at += _A_VALUE * (1 + len(items)) + sum(map(len, items))
        if looked_at > _MOST_BYTES or len(rows) > MOST_ROWS:
            raise InputError(
                f"the log has over {MOST_ROWS:,} rows or {_MOST_BYTES >> 20} MiB of history; "
                "export the loss as CSV"
            )
    return source


def _records(file: IO[bytes]) -> Iterator[bytes | None]:
    """Records, joined from their pieces, empty ones for pieces of others; None for one that is torn, or
    whose checksum does not hold.
    """
    at, joined = len(file.read(_HEAD_BYTES)), bytearray()
    while True:
        if (left := _BLOCK_BYTES - at % _BLOCK_BYTES) < _PIECE.size:
            file.read(left)
            at += left
            continue
        head = file.read(_PIECE.size)
        if not head or not any(head):  # the end, or room that was kept for more
            return
        if len(head) < _PIECE.size:
            yield None
            return
        check, length, kind = _PIECE.unpack(head)
        content = file.read(length)
        if len(content) < length or zlib.crc32(content, zlib.crc32(bytes([kind]))) != check:
            yield None
            return
        at += _PIECE.size + length
        if kind in (_FULL, _FIRST):
            joined.clear()
        if len(joined) + length <= _LARGEST_RECORD:
            joined += content
        yield bytes(joined) if kind in (_FULL, _LAST) else b""


def _items(record: bytes) -> list[bytes]:
    """The items of a record of history; none of other records."""
    try:
        history = fields_of(part(record, _HISTORY), _MOST_ITEMS)
        return [item for number, item in history if number == _ITEM and isinstance(item, bytes)]
    except ValueError:  # no record of W&B, though its checksum holds
        return []


def _row(items: Sequence[bytes]) -> Row | None:
    try:
        return row_of(dict(filter(None, map(_item, items)))) if items else None
    except ValueError:  # no record of W&B, though its checksum holds
        return None


def _item(item: bytes) -> tuple[str, Any] | None:
    name = "/".join(texts(item, _NESTED_KEY)) or "".join(texts(item, _KEY))
    if content := part(item, _JSON):
        try:
            return name, json.loads(content)
        except (ValueError, RecursionError):
            return None
    if number := part(item, _NUMBER):
        return name, struct.unpack("<d", number)[0] if len(number) == 8 else None
    return name, whole(item, _INTEGER)

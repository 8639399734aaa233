"""Event files of TensorBoard: records with checksums, of which the scalars are read."""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import IO, NamedTuple

from etude.errors import InputError
from etude.watch.logs.names import meaning_of
from etude.watch.logs.protobuf import fields_of, part, texts, unpack_floats, whole
from etude.watch.logs.rows import MOST_ROWS, Row, Source

_LENGTH = struct.Struct("<QI")
_LARGEST_SCALARS = 1 << 16  # bytes; a larger record holds pictures, histograms or graphs
_SMALL = 1 << 10  # bytes; a larger record is checked if it holds scalars
_LAST_LENGTH = 1 << 40
_MOST_VALUES = 10_000  # of a record
_MOST_BYTES, _A_VALUE = 128 << 20, 64  # that are checked; a record and a value count as so many besides
_VALUES, _TAG, _SIMPLE, _TENSOR = 1, 1, 2, 8  # fields of a summary, and of its values
_SUMMARY, _STEP = 5, 2  # fields of an event
_DTYPE, _CONTENT = 1, 4  # fields of a tensor, whose numbers stand in another by its type
_NUMBERS = {1: (5, "f"), 2: (6, "d")}  # float and double
_FEW = 3


def is_event_file(head: bytes) -> bool:
    """True for the first bytes of an event file: a length and its checksum."""
    if len(head) < _LENGTH.size:
        return False
    length, check = _LENGTH.unpack_from(head)
    return bool(length < _LAST_LENGTH and _masked_crc(head[:8]) == check)


def read_events(files: Iterable[IO[bytes]]) -> Source:
    """The scalars of event files of one run, in their order. Raises: InputError if there is too much."""
    source = Source("TensorBoard events", [])
    rows: list[Row] = []
    damaged = looked_at = 0
    for file in files:
        for record in _records(file):
            found = list(_rows(record.content)) if record else []
            is_checked = bool(record and (len(record.content) <= _SMALL or any(found)))
            if not record or (is_checked and _masked_crc(record.content) != record.check):
                damaged += 1
                break
            rows += filter(None, found)
            looked_at += _A_VALUE * (1 + len(found)) + is_checked * len(record.content)
            if looked_at > _MOST_BYTES or len(rows) > MOST_ROWS:
                raise InputError(
                    f"the log has over {MOST_ROWS:,} scalars or {_MOST_BYTES >> 20} MiB of records; give one "
                    "of its files, or export the loss as CSV"
                )
    if damaged:
        source.notes.append("the file ends in a torn or damaged record, which is left out with what follows")
    source.rows = _of_one_clock(rows, source.notes)
    return source


class _Record(NamedTuple):
    content: bytes
    check: int


def _records(file: IO[bytes]) -> Iterator[_Record | None]:
    """The records of a file up to its end, those that are too large empty; None for one that is torn."""
    while head := file.read(_LENGTH.size):
        if len(head) < _LENGTH.size or not is_event_file(head):
            yield None
            return
        length = _LENGTH.unpack(head)[0]
        if length > _LARGEST_SCALARS:
            file.seek(length + 4, 1)
            yield _Record(b"", _masked_crc(b""))
            continue
        content, check = file.read(length), file.read(4)
        if len(check) < 4:
            yield None
            return
        yield _Record(content, int.from_bytes(check, "little"))


def _rows(record: bytes) -> Iterator[Row | None]:
    """The values of an event: each scalar by its tag with the step, None for others."""
    try:
        summary = part(record, _SUMMARY)
        if not summary:
            return
        step = float(whole(record, _STEP))
        for number, value in fields_of(summary, _MOST_VALUES):
            tags = texts(value, _TAG) if number == _VALUES and isinstance(value, bytes) else []
            scalar = _scalar(value) if tags and isinstance(value, bytes) else None
            if scalar is None:
                yield None
            else:
                yield Row({"step": step, tags[-1]: scalar} if tags[-1] != "step" else {"step": scalar})
    except ValueError:  # no event, though its checksum holds
        return


def _scalar(value: bytes) -> float | None:
    """The number of a value: a float of its own, or a tensor of one number."""
    for number, content in fields_of(value):
        if number == _SIMPLE and isinstance(content, bytes) and len(content) == 4:
            return unpack_floats(content, "f")[0]
    tensor = part(value, _TENSOR)
    if not tensor or (dtype := whole(tensor, _DTYPE)) not in _NUMBERS:
        return None
    number, code = _NUMBERS[dtype]
    found = unpack_floats(part(tensor, _CONTENT) or part(tensor, number), code)
    return found[0] if len(found) == 1 else None


def _of_one_clock(rows: list[Row], notes: list[str]) -> list[Row]:
    """Rows whose tags count the same steps, in order of them where each tag alone is in order.

    A validation loss that is written with the number of its epoch does not fit beside one of each step.
    """
    steps: dict[str, list[float]] = {}
    for row in rows:
        for name in row.figures:
            if name != "step":
                steps.setdefault(name, []).append(row.figures["step"])
    ordered = {name for name, of in steps.items() if all(a <= b for a, b in pairwise(of))}
    losses = [name for name in steps if (meaning := meaning_of(name)) and meaning.figure == "loss"]
    if losses:
        last = max(max(steps[name]) for name in losses)
        count = Counter({name: len(steps[name]) for name in losses}).most_common(1)[0][1]
        odd = {
            name
            for name, of in steps.items()
            if len(of) > _FEW and max(of) * 5 < last and len(of) * 5 < count and min(of) <= 1
            and (meaning := meaning_of(name)) and meaning.figure in ("eval_loss", "metric", "loss", "epoch")
        }  # fmt: skip
        for name in sorted(odd):
            notes.append(
                f"{name[:60]} counts steps of its own, up to {max(steps[name]):,.0f}, and is left out"
            )
        rows = [row for row in rows if not odd & row.figures.keys()]
        ordered |= odd
    if ordered == set(steps):
        rows = sorted(rows, key=lambda row: row.figures["step"])
    return rows


def _masked_crc(content: bytes) -> int:
    """The CRC-32C of bytes, rotated and shifted as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()

"""Many steps and resources are read at once as they are read one by one, with all checks, or not at all."""

import json
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from etude.records import flat
from etude.records.events import Resource, Step, to_json
from etude.records.journal import Reader
from tests.records.samples import step

EVENTS = {
    "step": step(1),
    "resource": Resource(1, 1.0, 0.5, 0.1, 90.0, 10, None, None),
    "scaled step": step(1)._replace(loss_scale=65536.0),
    "whole resource": Resource(1, 1.0, 0.5, 0.1, 90.0, 10, None, None, 5),
}
LINES = {
    name: json.dumps(to_json(event, 1e9) | {"crc": "00000000"}).encode() for name, event in EVENTS.items()
}
VALUES = [
    "0", "-0", "-0.0", "1", "1.0", "1e2", "01", "1.", "+1", "1e999", "-1e999", "NaN", "-Infinity", "true", "null",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1" + "0" * 30, "1" * 5000, "4.9e-324",
    "0." + "0" * 400 + "1", "123456789012345678901.5", "253402300800", "1000000000001", '"nan"', '"-inf"', '"x"',
    '"\\ud800"', '"x\\u0000"', '"{"', '"}, {"', "[]", "[1]", "[" * 25 + "]" * 25, "{}", '{"a": 1}',
]  # fmt: skip
NAMES = [*to_json(EVENTS["step"], 1e9), *to_json(EVENTS["resource"], 1e9), "x", "\\u0074ype", "cr\\u0063"]
ENDS = [
    b"",
    b" ",
    b"\r",
    b"\t",
    b"\v",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b', "q": "\xed\xa0\x80"',
    b', "q": "\\ud800"',
]
Edit = tuple[str, str, str, int]


def odd_line(kind: str, edits: list[Edit], end: bytes) -> bytes:
    """A line of numbers with some of its keys replaced, added or left out, whose checksum holds."""
    keys = [(json.dumps(name), json.dumps(value)) for name, value in to_json(EVENTS[kind], 1e9).items()]
    for how, name, value, place in edits:
        if how == "add":
            keys.insert(1 + place % len(keys), (f'"{name}"', value))
        elif name != "type":
            keys = [pair if pair[0] != f'"{name}"' else (pair[0], value) for pair in keys]
            keys = [pair for pair in keys if how == "replace" or pair[0] != f'"{name}"']
    body = ("{" + ", ".join(f"{name}: {value}" for name, value in keys)).encode() + end
    return body + b', "crc": "%08x"}' % zlib.crc32(body)


def one_by_one(self: Reader, lines: list[bytes]) -> None:
    for line in lines:
        self._take(line)


EDIT = st.tuples(
    st.sampled_from(["add", "replace", "leave out"]), st.sampled_from(NAMES), st.sampled_from(VALUES),
    st.integers(0, 20),
)  # fmt: skip
LINE = st.builds(odd_line, st.sampled_from(list(EVENTS)), st.lists(EDIT, max_size=2), st.sampled_from(ENDS))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, min_size=1, max_size=3))
@example([odd_line("step", [("add", "type", '"resource"', 3)], b"")])
@example([odd_line("step", [("add", "loss", "2.0", 1)], b"")])
@example([odd_line("step", [("replace", "loss", "1" + "0" * 30, 0)], b"")])
@example([odd_line("resource", [("add", "x", "[" * 25 + "]" * 25, 3)], b"")])
def test_odd_lines_are_read_at_once_as_they_are_one_by_one(tmp_path: Path, lines: list[bytes]) -> None:
    usual = [odd_line(kind, [], b"") for kind in EVENTS]
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\n".join([*usual, *lines, *usual, b""]))
    together = Reader(path).read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "_take_flat", one_by_one)
        alone = Reader(path).read()
    assert repr(together) == repr(alone)
    assert len(together.entries) >= 4


def test_lines_of_both_types_are_read_in_their_order() -> None:
    assert [
        entry.event for entry in flat.read([LINES[name] for name in ("step", "resource", "step")], 1)
    ] == [EVENTS[name] for name in ("step", "resource", "step")]
    assert flat.read([], 1) == []


HALVES = [
    (
        b'{"type": "step", "k": [{"x": 1, "crc": "00000000"}',
        b'{"type": "step"}], "foo": 1, "crc": "00000000"}',
    ),
    (b'{"type": "step", "k": "a, "crc": "00000000"}', b'{"type": "step", "k": b", "crc": "00000000"}'),
    (b'{"type": "step", "k": {"x": 1, "crc": "00000000"}', b'{"type": "step"}}, "crc": "00000000"}'),
]


@pytest.mark.parametrize("halves", HALVES)
def test_lines_that_are_records_only_together_are_not_read(halves: tuple[bytes, bytes]) -> None:
    two = LINES["step"] + b"," + LINES["step"]  # as many objects as lines again
    for lines in (halves, (*halves, two), (two, *halves), (LINES["step"], two)):
        with pytest.raises(ValueError, match=r"."):
            flat.read(list(lines), 1)


def test_other_types_are_not_flat() -> None:
    for line in (b"", b"{", b'{"type": "step"}', b'{"type": "steps", "time": 1', b'{"type":"step",'):
        assert not flat.is_flat(line)


def test_the_values_of_a_type_are_the_fields_of_its_event() -> None:
    lines = [LINES["step"], LINES["scaled step"]]
    assert flat.read_values(lines, Step) == [tuple(EVENTS["step"]), tuple(EVENTS["scaled step"])]
    assert flat.read_values([LINES["resource"]], Resource) == [tuple(EVENTS["resource"])]
    assert [flat.is_step(LINES[name]) for name in ("step", "resource")] == [True, False]
    with pytest.raises(ValueError, match="within a line"):
        flat.read_values([b"{{"], Step)


def test_the_places_of_other_lines_are_those_that_are_not_flat() -> None:
    some = [b'{"type": "step", 1', b'{"type": "resource", 1', b'{"type": "note"}', b"", b'{"type": "step"}']
    for lines in ([], some[:2], some, some[::-1], some[2:] * 2):
        assert flat.others(lines) == [place for place, line in enumerate(lines) if not flat.is_flat(line)]

"""Many steps and resources are read at once as they are read one by one, with all checks, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.records import flat
from etude.records.events import Resource, from_json, to_json
from etude.records.ledger import Entry
from tests.records.samples import step

EVENTS = {"step": step(1), "resource": Resource(1, 1.0, 0.5, 0.1, 90.0, 10, None, None)}
LINES = {
    name: json.dumps(to_json(event, 1e9) | {"crc": "00000000"}).encode() for name, event in EVENTS.items()
}
NUMBERS = st.one_of(
    st.integers(-2, 2**63 - 1), st.floats(), st.booleans(), st.none(), st.sampled_from(["nan", "inf", "x"]),
    st.just([1]), st.just({}),
)  # fmt: skip


@given(st.sampled_from(list(EVENTS)), st.data())
def test_an_odd_line_is_read_as_with_all_checks_or_not_at_all(kind: str, data: st.DataObject) -> None:
    record = to_json(EVENTS[kind], 1e9) | {"crc": "00000000"}
    for name in data.draw(st.sets(st.sampled_from(list(record)), max_size=2)) - {"type", "crc"}:
        record[name] = data.draw(NUMBERS)
    line = json.dumps(record).encode()
    assert flat.is_flat(line)
    try:
        before, entry, after = flat.read([LINES["step"], line, LINES["resource"]], 3)
    except ValueError:
        return
    assert (
        repr(entry.event) == repr(from_json(record)) and entry.time == record["time"] and entry.attempt == 3
    )
    assert 0 <= entry.time < 253402300800
    assert [before, after] == [Entry(EVENTS["step"], 1e9, 3), Entry(EVENTS["resource"], 1e9, 3)]


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

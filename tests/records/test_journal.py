import json
import math
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.records.events import (
    Evaluation,
    Generation,
    Note,
    Rating,
    Resource,
    Scores,
    Step,
    from_json,
    from_line,
    to_json,
)
from etude.records.journal import Journal, Reader, read_journal
from tests.records.samples import attempt, step


def test_every_line_is_json_with_a_checksum_of_the_bytes_before_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(Note("lessons", 'quotes " and é'))
    journal.close()
    first, second = (tmp_path / "j").read_bytes().splitlines()
    assert json.loads(first)["format"] == 1
    record = json.loads(second)
    assert list(record)[-1] == "crc"
    body, _, _ = second.rpartition(b', "crc": "')
    assert record["crc"] == f"{zlib.crc32(body):08x}"


def test_a_torn_tail_at_any_byte_is_dropped_and_writing_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append_all([step(1), step(2)])
    journal.close()
    whole = path.read_bytes()
    second = whole.rindex(b"\n", 0, -1) + 1
    for end in range(second, len(whole)):
        path.write_bytes(whole[:end])
        assert [entry.event.step for entry in read_journal(path).entries] == [1]
        again = Journal(path)
        again.append(step(3))
        again.close()
        ledger = read_journal(path)
        assert [entry.event.step for entry in ledger.entries] == [1, 3]
        assert ledger.damaged == []


def test_a_flipped_bit_is_found_and_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append_all([step(1), step(2), step(3)])
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(len(lines[2]) - 1):
        broken = bytearray(lines[2])
        broken[position] ^= 1
        if broken[position] == ord("\n"):
            continue
        path.write_bytes(b"".join([*lines[:2], bytes(broken), *lines[3:]]))
        assert read_journal(path).damaged == [3]


def test_a_restart_makes_later_records_rework(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append_all(
        [attempt(1, 0), step(1), step(2), step(3), Note("next", "stays"), attempt(2, 1), step(2)]
    )
    journal.close()
    ledger = read_journal(tmp_path / "j")
    assert [
        (entry.event.step, entry.attempt) for entry in ledger.entries if isinstance(entry.event, Step)
    ] == [
        (1, 1),
        (2, 2),
    ]
    assert [entry.event.step for entry in ledger.rework] == [2, 3]
    assert any(isinstance(entry.event, Note) for entry in ledger.entries)


def test_unknown_types_and_keys_are_ignored_and_newer_formats_refused(tmp_path: Path) -> None:
    def line(record: dict[str, object]) -> bytes:
        body = json.dumps(record)[:-1].encode()
        return body + b', "crc": "%08x"}\n' % zlib.crc32(body)

    path = tmp_path / "j"
    known = to_json(step(1), 0.0) | {"new_key": 1}
    path.write_bytes(
        line({"type": "journal", "format": 1}) + line({"type": "novelty", "time": 0}) + line(known)
    )
    assert [entry.event for entry in read_journal(path).entries] == [step(1)]
    path.write_bytes(line({"type": "journal", "format": 2}))
    with pytest.raises(InputError, match="format 2; this etude reads up to 1"):
        read_journal(path)


@given(st.floats(), st.floats())
def test_every_float_survives(loss: float, bits: float) -> None:
    event = Evaluation(1, loss, 1.0, bits, 1, 1.0, True)
    back = from_json(json.loads(json.dumps(to_json(event, 0.0), allow_nan=False)))
    assert repr(back) == repr(event)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1"])
def test_a_text_that_reads_like_a_number_stays_a_text(text: str) -> None:
    for event in (
        Note("next", text),
        Generation(1, text, text, {"seed": 1}, text),
        Rating(1, text, text, text, 4),
    ):
        assert from_json(json.loads(json.dumps(to_json(event, 0.0)))) == event


def test_figures_of_nothing_are_numbers_again() -> None:
    event = Evaluation(0, 1.0, 1.0, None, 1, 1.0, False, {"parse_rate": math.nan, "bleu": 2.0})
    back = from_json(json.loads(json.dumps(to_json(event, 0.0), allow_nan=False)))
    assert repr(back) == repr(event)


def test_intervals_of_nothing_are_numbers_again() -> None:
    nothing = [1.0, math.nan, math.nan]
    event = Scores(
        3, 1, "test", "f1", {"after": {"f1": nothing}}, {"before": nothing}, {}, ["nan"], [], [math.nan]
    )
    back = from_json(json.loads(json.dumps(to_json(event, 0.0), allow_nan=False)))
    assert repr(back) == repr(event)


def test_a_reader_follows_a_journal_as_reading_it_whole_would(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    reader = Reader(path)
    for events in ([attempt(1, 0), step(1), step(2)], [step(3)], [], [attempt(2, 1), step(2, 5.0)]):
        journal.append_all(events)
        assert reader.read() == read_journal(path)
    with path.open("ab") as file:
        file.write(b"no record\n" + b'{"type": "step", "time": 1.0')  # damaged, then torn
    assert reader.read() == read_journal(path) and reader.read().damaged == [7 + 1]
    assert reader.read().size < path.stat().st_size
    assert [entry.event for entry in reader.read().rework] == [step(2), step(3)]


NUMBERS = st.one_of(
    st.integers(-2, 2**64), st.floats(), st.booleans(), st.none(), st.sampled_from(["nan", "inf", "x"])
)


@given(st.sampled_from(["step", "resource"]), st.data())
def test_a_line_is_read_quickly_as_it_is_read_with_all_checks_or_not_at_all(
    kind: str, data: st.DataObject
) -> None:
    events = {"step": step(1), "resource": Resource(1, 1.0, 0.5, 0.1, 90.0, 10, None, None)}
    record = to_json(events[kind], 1e9) | {"crc": "00000000"}
    for name in data.draw(st.sets(st.sampled_from(list(record)), max_size=2)) - {"type", "crc"}:
        record[name] = data.draw(NUMBERS)
    quick = from_line(json.dumps(record).encode())
    if quick is not None:
        event, time = quick
        assert repr(event) == repr(from_json(record)) and time == record["time"]
        assert 0 <= time < 253402300800 and vars(event) == {**vars(events[kind]), **vars(event)}


def test_most_lines_of_a_run_are_read_quickly() -> None:
    for event in (
        step(1),
        Resource(1, 1.0, 0.5, 0.1, 90.0, 10),
        Resource(1, 1.0, 0.5, 0.1, 90.0, 10, 5.0, 7),
    ):
        line = json.dumps(to_json(event, 1e9) | {"crc": "00000000"}).encode()
        assert from_line(line) == (event, 1e9)

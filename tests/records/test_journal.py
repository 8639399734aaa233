import gc
import json
import math
import weakref
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.errors import DamageError, InputError
from etude.records.events import Finding, Note, Resource, Step, to_json
from etude.records.journal import Journal, Reader, append_beside, read_journal
from etude.records.ledger import is_void
from tests.records.samples import attempt, step
from tests.report.runs import finished_run

END = Resource(3, 200.0, 0.25, 0.01, 90.0, 1 << 20)


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
    journal.append(*[step(1), step(2)])
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
    journal.append(*[step(1), step(2), step(3)])
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(len(lines[2]) - 1):
        broken = bytearray(lines[2])
        broken[position] ^= 1
        if broken[position] == ord("\n"):
            continue
        path.write_bytes(b"".join([*lines[:2], bytes(broken), *lines[3:]]))
        assert read_journal(path).damaged == [3]


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


def test_a_reader_follows_a_journal_as_reading_it_whole_would(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    reader = Reader(path)
    for events in ([attempt(1, 0), step(1), step(2)], [step(3)], [], [attempt(2, 1), step(2, 5.0)]):
        journal.append(*events)
        assert reader.read() == read_journal(path)
    with path.open("ab") as file:
        file.write(b"no record\n" + b'{"type": "step", "time": 1.0')  # damaged, then torn
    assert reader.read() == read_journal(path) and reader.read().damaged == [7 + 1]
    assert reader.read().size < path.stat().st_size
    assert [entry.event for entry in reader.read().rework] == [step(2), step(3)]


def test_steps_among_other_lines_are_read_in_their_order(tmp_path: Path) -> None:
    written = [
        attempt(1, 0),
        step(1),
        Note("next", "a"),
        step(2),
        step(3, math.nan),
        END,
        step(4),
        attempt(2, 3),
    ]
    journal = Journal(tmp_path / "j")
    journal.append(*written)
    journal.append(*[step(number) for number in range(4, 1000)])
    journal.close()
    entries = read_journal(tmp_path / "j").entries
    assert repr([entry.event for entry in entries[:7]]) == repr([*written[:6], written[7]])
    assert [entry.event for entry in entries[7:]] == [step(number) for number in range(4, 1000)]
    assert [entry.attempt for entry in entries] == [1] * 6 + [2] * 997


def test_a_damaged_step_among_many_is_the_only_one_that_does_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(*[step(number) for number in range(1, 501)])
    journal.close()
    lines = (tmp_path / "j").read_bytes().split(b"\n")
    lines[250] = lines[250].replace(b'"epoch": 0', b'"epoch": 1')
    (tmp_path / "j").write_bytes(b"\n".join(lines))
    ledger = read_journal(tmp_path / "j")
    assert ledger.damaged == [251]
    assert [entry.event.step for entry in ledger.entries if isinstance(entry.event, Step)] == [
        number for number in range(1, 501) if number != 250
    ]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lines=st.lists(st.tuples(st.sampled_from(["step", "finding", "attempt"]), st.integers(0, 6)), max_size=30)
)
def test_any_order_of_starts_makes_void_what_is_beyond_each(
    tmp_path: Path, lines: list[tuple[str, int]]
) -> None:
    (tmp_path / "j").unlink(missing_ok=True)
    journal, counts = Journal(tmp_path / "j"), []
    for number, (kind, at) in enumerate(lines):
        if kind == "attempt":
            event = attempt(number=number, from_step=at)
            counts = [each for each in counts if not is_void(each, at)]
        else:
            event = step(at) if kind == "step" else Finding(at, "a", "b", "c")
        counts.append(event)
        journal.append(event)
    journal.close()
    ledger = read_journal(tmp_path / "j")
    assert [entry.event for entry in ledger.entries] == counts
    assert len(ledger.all) == len(lines)


@pytest.mark.parametrize("kind", ["removed", "replaced by itself", "replaced by a link"])
def test_a_journal_that_is_no_longer_where_it_was_is_noticed_at_the_next_append(
    tmp_path: Path, kind: str
) -> None:
    path, copy = tmp_path / "journal.jsonl", tmp_path / "copy"
    journal = Journal(path)
    journal.append(step(1))
    copy.write_bytes(path.read_bytes())
    path.unlink()
    if "link" in kind:
        path.symlink_to(copy)
    elif "itself" in kind:
        copy.rename(path)
    with pytest.raises(DamageError, match="was removed or replaced during the run; restore it from a copy"):
        journal.append(step(2))
    journal.close()


def test_a_journal_that_somebody_cuts_off_is_noticed_at_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append(step(1), step(2))
    size = path.stat().st_size
    append_beside(path, Note("next", "by another process"))
    journal.append(step(3))  # longer than this process left it
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(
        DamageError, match=rf"cut off to {size:,} of .* during the run; restore it from a copy"
    ):
        journal.append(step(4))
    assert path.stat().st_size == size
    journal.close()


def test_a_reader_that_is_done_with_leaves_no_memory_to_the_garbage_collector(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    gc.collect()
    gc.disable()
    try:
        reader = Reader(run.path / "journal.jsonl")
        known = weakref.ref(reader), len(reader.read().entries)
        del reader
        assert known[0]() is None and known[1] > 40
    finally:
        gc.enable()

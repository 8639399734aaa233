"""The head of a journal says which lines came before it, whoever wrote them."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.records.events import Note
from etude.records.head import Growing, Head, hash_lines, hash_until
from etude.records.journal import Journal, append_beside
from tests.records.samples import step


def test_the_head_of_a_journal_is_the_hash_of_its_lines_also_of_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal, heads = Journal(path), []
    for number in (1, 2, 3):
        journal.append(step(number))
        append_beside(path, Note("lessons", "é" * number))
        heads.append(journal.head())
    journal.close()
    whole = path.read_bytes()
    assert heads[-1] == Head(len(whole), hashlib.sha256(whole).hexdigest())
    again = Journal(path)
    again.append(step(4))
    assert again.head().sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    again.close()
    assert hash_until(path, [head.bytes for head in heads]) == dict(heads)


def test_an_edited_loss_does_not_follow_from_a_later_head(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append(step(1))
    first = journal.head()
    journal.append(step(2))
    second = journal.head()
    journal.close()
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 3'))
    assert hash_until(path, [first.bytes, second.bytes])[first.bytes] == first.sha256
    assert hash_until(path, [first.bytes, second.bytes])[second.bytes] != second.sha256
    assert hash_until(path, [first.bytes, second.bytes + 1]) == {first.bytes: first.sha256}


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_line_that_is_not_whole_is_no_part_of_a_head_yet(parts: list[bytes]) -> None:
    content = b""
    growing = Growing(lambda start, most: content[start : start + min(most, 7)])
    for part in parts:
        content += part
        lines = content[: content.rfind(b"\n") + 1]
        assert growing.head() == Head(len(lines), hashlib.sha256(lines).hexdigest())


@pytest.mark.parametrize(
    "value", [{}, {"bytes": 3}, {"bytes": -1, "sha256": "0" * 64}, {"bytes": 1, "sha256": "x"}, 3]
)
def test_what_is_no_head_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"bytes|sha256|object|number"):
        Head.read(value)
    assert Head.read(None) is None


def test_the_hash_of_each_line_gives_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"a\nbc\n")
    ends = [hashlib.sha256(each).hexdigest() for each in (b"a\n", b"a\nbc\n")]
    assert hash_lines(path) == dict(zip(ends, (2, 5)))

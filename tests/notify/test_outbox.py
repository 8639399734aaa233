"""outbox.jsonl: every message, what came of it, and lines that are none of its own."""

import json
import os
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.notify.message import Message
from etude.notify.outbox import FILE, Outbox, read_outbox


def message(cause: str = "fault") -> Message:
    return Message(
        "fault", "error", cause, "run", 3, "title", "text\nof two lines", {"loss": 2.5}, ["etude show run"]
    )


def test_a_message_is_a_line_that_says_not_sent_before_anything_is_tried(tmp_path: Path) -> None:
    outbox, one = Outbox(tmp_path / FILE), message()
    assert outbox.add(one, ["line"]) and not outbox.add(message(), ["line"])
    (line,) = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(line)["state"] == "not sent" and json.loads(line)["text"] == one.text
    assert read_outbox(tmp_path / FILE)[one.id].states == {"line": ("not sent", "it was not tried yet")}
    outbox.note(one, "line", "sent", tries=2)
    assert read_outbox(tmp_path / FILE)[one.id].states == {"line": ("sent", "")}
    assert read_outbox(tmp_path / FILE)[one.id].message == one


def test_lines_that_are_damaged_or_hostile_are_passed_over(tmp_path: Path) -> None:
    outbox, one = Outbox(tmp_path / FILE), message()
    outbox.add(one, ["line"])
    bad = [
        b"{",
        b"[" * 50_000,
        b"\xff\xfe",
        b'{"text": 3}',
        b'{"id": "x", "channel": "line", "state": "odd"}',
        b"null",
    ]
    bad += [b'{"text": "' + b"x" * 200_000 + b'"}', json.dumps({**one.to_dict(), "kind": "odd"}).encode()]
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\n".join(bad) + b"\n")
    outbox.note(one, "line", "refused", "HTTP 400")
    assert next(iter(read_outbox(tmp_path / FILE).values())).states == {"line": ("refused", "HTTP 400")}
    assert len(read_outbox(tmp_path / FILE)) == 1


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("/dev/null"), os.mkfifo, lambda path: path.mkdir()]
)
def test_an_outbox_that_is_no_plain_file_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / FILE)  # type: ignore[operator]
    with pytest.raises(InputError):
        Outbox(tmp_path / FILE)

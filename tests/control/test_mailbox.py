import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.control.mailbox import FILE, Mailbox, Request, post
from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.records.store import RunWriter, create_run
from tests.recipes import tiny


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    writer = create_run(tmp_path / "runs", recipe_from(tiny(tmp_path / "none.jsonl")))
    yield writer
    writer.close("stopped")


def drain(mailbox: Mailbox) -> list[Request]:
    found = []
    while request := mailbox.next():
        found.append(request)
    return found


def line(**values: object) -> bytes:
    return json.dumps({"id": "a", "action": "stop", **values}).encode() + b"\n"


def test_requests_come_in_their_order_and_once(writer: RunWriter) -> None:
    mailbox = Mailbox(writer.run.path / FILE)
    first = post(writer.run, "set", key="optim.learning_rate", value=1e-4, reason="it jumps")
    second = post(writer.run, "pause")
    assert mailbox.look() == []
    assert drain(mailbox) == [
        Request(first, "set", "optim.learning_rate", 1e-4, "it jumps"), Request(second, "pause"),
    ]  # fmt: skip
    third = post(writer.run, "go on")
    assert mailbox.look() == [] and [request.id for request in drain(mailbox)] == [third]
    assert mailbox.look() == [] and drain(mailbox) == []


def test_requests_of_an_earlier_attempt_are_void(writer: RunWriter) -> None:
    post(writer.run, "stop")
    mailbox = Mailbox(writer.run.path / FILE)
    assert (mailbox.look(), drain(mailbox)) == ([], [])


def test_a_line_that_is_still_written_waits_for_its_end(tmp_path: Path) -> None:
    mailbox, path = Mailbox(tmp_path / FILE), tmp_path / FILE
    path.write_bytes(line()[:10])
    assert (mailbox.look(), drain(mailbox)) == ([], [])
    path.write_bytes(line())
    assert (mailbox.look(), drain(mailbox)) == ([], [Request("a", "stop")])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"stop\n", "Expecting value"),
        (b"\xff\xfe\n", "invalid start byte"),
        (b"[]\n", "is no object"),
        (b"[" * 50_000 + b"\n", "control.jsonl is nested too deeply"),
        (line(id="../x"), "does not match"),
        (line(id=7), "is not a text"),
        (line(action="rm -rf"), "none of stop, pause, go on, set"),
        (line(action="set"), "set and back need a key, and no other action has one"),
        (line(action="back", key="seed"), "back needs a step, and no other action has one"),
        (line(action="back", key="seed", step="2"), "step"),
        (line(step=2), "back needs a step, and no other action has one"),
        (line(key="seed"), "set and back need a key, and no other action has one"),
        (line(action="set", key="seed", value=[1]), "a list is no number"),
        (line(reason="r" * 1000), "over 200 characters"),
        (line()[:-2] + b', "action": "pause"}\n', "has the key 'action' twice"),
        (line() + line(), "there was a request a before"),
        (b"x" * (1 << 16), "a line of control.jsonl has over 65,536 bytes"),
    ],
)
def test_a_hostile_line_is_named_and_what_follows_is_read(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(content)
    (found,) = mailbox.look()
    assert re.search(problem, found) and len(found) <= 300
    drain(mailbox)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\n" * (not content.endswith(b"\n")) + line(id="b"))
    mailbox.look()
    assert drain(mailbox) == [Request("b", "stop")]


def test_a_link_or_a_pipe_is_no_mailbox(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(line())
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    mailbox = Mailbox(tmp_path / FILE)
    assert len(mailbox.look()) == 1 and drain(mailbox) == []
    assert mailbox.look() == []  # each problem once
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    assert len(mailbox.look()) == 1 and drain(mailbox) == []


def test_a_file_that_became_shorter_is_read_from_its_new_end(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(line() * 3)
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(line(id="b"))
    assert mailbox.look() == ["control.jsonl became shorter; only what comes from now on counts"]
    assert drain(mailbox) == []


def test_problems_are_told_twenty_times_at_most(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"".join(line(id=f"_{number}") for number in range(100)))
    assert len(mailbox.look()) == 20 and mailbox.look() == []


def test_nobody_asks_a_run_that_does_not_go_on_or_for_what_no_run_does(writer: RunWriter) -> None:
    with pytest.raises(
        InputError, match="cannot be made: action: 'dance' is none of stop, pause, go on, set"
    ):
        post(writer.run, "dance")
    with pytest.raises(InputError, match="set and back need a key"):
        post(writer.run, "set", value=3)
    assert not (writer.run.path / FILE).exists()
    writer.beat("stopped")
    with pytest.raises(InputError, match="is stopped; only a run that is going on takes requests"):
        post(writer.run, "stop")

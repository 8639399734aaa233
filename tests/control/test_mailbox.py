import json
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from etude.control.mailbox import FILE, Mailbox, Request, post, who_asks
from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.records.store import RunWriter, create_run
from tests.recipes import tiny


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    writer = create_run(tmp_path / "runs", recipe_from(tiny(tmp_path / "none.jsonl")))
    yield writer
    writer.close("stopped")


def line(**values: object) -> bytes:
    return json.dumps({"id": "a", "action": "stop", **values}).encode() + b"\n"


def test_requests_come_in_their_order_and_once(writer: RunWriter) -> None:
    mailbox = Mailbox(writer.run.path / FILE)
    first = post(writer.run, "set", key="optim.learning_rate", value=1e-4, reason="it jumps")
    second = post(writer.run, "pause", channel="cli", release=True)
    known = {"who": who_asks(), "attempt": writer.attempt}
    assert mailbox.look() == (
        [
            Request(first, "set", "optim.learning_rate", 1e-4, "it jumps", channel="python", **known),
            Request(second, "pause", release=True, channel="cli", **known),
        ],
        [],
    )
    third = post(writer.run, "generate", text="def ")
    (found,), problems = mailbox.look()
    assert (found.id, found.text, problems) == (third, "def ", [])
    assert mailbox.look() == ([], [])


def test_requests_of_an_earlier_attempt_are_told_apart(writer: RunWriter) -> None:
    asked = post(writer.run, "stop")
    (writer.run.path / FILE).write_bytes((writer.run.path / FILE).read_bytes() + b"not a request\n")
    mailbox = Mailbox(writer.run.path / FILE)
    assert ([request.id for request in mailbox.stale], mailbox.look()) == ([asked], ([], []))


def test_a_line_that_is_still_written_waits_for_its_end(tmp_path: Path) -> None:
    mailbox, path = Mailbox(tmp_path / FILE), tmp_path / FILE
    path.write_bytes(line()[:10])
    assert mailbox.look() == ([], [])
    with path.open("ab") as file:
        file.write(line()[10:])
    assert mailbox.look() == ([Request("a", "stop")], [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"stop\n", "Expecting value"),
        (b"\xff\xfe\n", "invalid start byte"),
        (b"[]\n", "is no object"),
        (b"[" * 50_000 + b"\n", "control.jsonl is nested too deeply"),
        (line(id="../x"), "does not match"),
        (line(id=7), "is not a text"),
        (line(action="rm -rf"), "none of stop, pause, resume"),
        (line(action="set"), "set and back need a key, and no other action has one"),
        (line(action="back", key="seed"), "back needs a step, and no other action has one"),
        (line(action="back", key="seed", step="2"), "step"),
        (line(step=2), "back needs a step, and no other action has one"),
        (line(key="seed"), "set and back need a key, and no other action has one"),
        (line(action="set", key="seed", value=[1]), "a list is no number"),
        (line(reason="r" * 1000), "over 200 characters"),
        (line()[:-2] + b', "action": "pause"}\n', "has the key 'action' twice"),
        (line() + line(), "there was a request a before"),
        (line(action="generate"), "generate and note need a text"),
        (line(text="def "), "generate and note need a text"),
        (line(release=True), "pause alone may release"),
        (line(who="w" * 1000), "its who has over 200 characters"),
        (b"x" * (1 << 16), "a line of control.jsonl has over 65,536 bytes"),
        (b"x" * 100_000 + b"\n", "a line of control.jsonl has over 65,536 bytes"),
        (b"x" * 10_000_000, "a line of control.jsonl has over 65,536 bytes"),
        (b"x" * 10_000_000 + b"\n", "a line of control.jsonl has over 65,536 bytes"),
    ],
    ids=range(24),
)
def test_a_hostile_line_is_named_and_what_follows_is_read(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(content)
    _, (found,) = mailbox.look()
    assert re.search(problem, found) and len(found) <= 300
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\n" * (not content.endswith(b"\n")) + line(id="b"))
    assert mailbox.look() == ([Request("b", "stop")], [])


def test_a_link_or_a_pipe_is_no_mailbox(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(line())
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    mailbox = Mailbox(tmp_path / FILE)
    requests, (problem,) = mailbox.look()
    assert requests == [] and "is a link" in problem
    assert mailbox.look() == ([], [])  # each problem once
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    requests, (problem,) = mailbox.look()
    assert requests == [] and "is a pipe" in problem


def test_the_mailbox_of_another_user_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_bytes(b"")
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(line())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    requests, (problem,) = mailbox.look()
    assert requests == [] and "belongs to another user" in problem


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_became_another_is_read_from_its_end(tmp_path: Path, is_replaced: bool) -> None:
    path = tmp_path / FILE
    path.write_bytes(line() * 3)
    mailbox = Mailbox(path)
    if is_replaced:
        (tmp_path / "new").write_bytes(line(id="b") * 9)
        (tmp_path / "new").rename(path)
    else:
        path.write_bytes(line(id="b"))
    what = "was replaced" if is_replaced else "became shorter"
    assert mailbox.look() == ([], [f"control.jsonl {what}; only what comes from now on counts"])
    with path.open("ab") as file:
        file.write(line(id="c"))
    assert mailbox.look() == ([Request("c", "stop")], [])


def test_an_empty_line_of_two_that_asked_at_once_is_none(tmp_path: Path) -> None:
    mailbox, path = Mailbox(tmp_path / FILE), tmp_path / FILE
    path.write_bytes(line() + b"\n" + line(id="b"))
    assert mailbox.look() == ([Request("a", "stop"), Request("b", "stop")], [])


def test_an_id_that_the_journal_has_is_passed_over(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / FILE, frozenset({"a"}))
    (tmp_path / FILE).write_bytes(line() + line(id="b"))
    assert mailbox.look() == ([Request("b", "stop")], ["there was a request a before"])


def test_ten_thousand_requests_are_read_in_one_look(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"".join(line(id=f"r-{number}") for number in range(10_000)))
    requests, problems = mailbox.look()
    assert ([request.id for request in requests], problems) == (
        [f"r-{number}" for number in range(10_000)],
        [],
    )


def test_problems_are_told_twenty_times_at_most(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"".join(line(id=f"_{number}") for number in range(100)))
    assert len(mailbox.look()[1]) == 20 and mailbox.look() == ([], [])


def test_nobody_asks_a_run_that_does_not_go_on_or_for_what_no_run_does(writer: RunWriter) -> None:
    with pytest.raises(InputError, match="cannot be made: action: 'dance' is none of stop, pause, resume"):
        post(writer.run, "dance")
    with pytest.raises(InputError, match="set and back need a key"):
        post(writer.run, "set", value=3)
    assert not (writer.run.path / FILE).exists()
    writer.beat("stopped")
    with pytest.raises(InputError, match="is stopped; only a run that is going on takes requests"):
        post(writer.run, "stop")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x" * 70_000, "it has over 65,536 bytes"),
        (date(1970, 1, 1), "a date is no value"),
        ({1}, "a set is no value"),
    ],
)
def test_what_the_run_would_not_read_is_refused_to_who_asks(
    writer: RunWriter, value: Any, problem: str
) -> None:
    with pytest.raises(InputError, match=f"cannot be made: {problem}"):
        post(writer.run, "set", key="optim.learning_rate", value=value)
    assert not (writer.run.path / FILE).exists()

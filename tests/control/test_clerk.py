import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, Request
from etude.errors import InputError
from etude.records.events import Control, Event, Finding


class Room:
    """A clerk over a file, what it tells, and the step that its run is at."""

    def __init__(self, folder: Path, known: frozenset[str] = frozenset()) -> None:
        self.path, self.at = folder / FILE, 4
        self.told: list[Event] = []
        self.came = threading.Event()
        self.clerk = Clerk(
            mailbox=Mailbox(self.path, known), attempt="now", check=self._check, step=lambda: self.at,
            edge=lambda: self.at + 1, tell=self._tell,
        )  # fmt: skip

    def ask(self, *requests: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps({"action": "stop", **each}) + "\n" for each in requests)

    def answers(self) -> list[tuple[str, str | None]]:
        return [(each.action, each.request) for each in self.told if isinstance(each, Control)]

    def _tell(self, *events: Event) -> None:
        self.told += events
        self.came.set()

    @staticmethod
    def _check(request: Request) -> None:
        if request.action == "evaluate":
            raise InputError("it has no validation samples")


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_a_request_is_accepted_at_once_and_kept_for_the_desk(room: Room) -> None:
    room.ask({"id": "a", "action": "pause", "who": "anna@host", "channel": "cli"})
    room.clerk.look()
    assert room.told == [
        Control(4, "accept", "pause: acts after step 5", "a", who="anna@host", channel="cli")
    ]  # fmt: skip
    request = room.clerk.next()
    assert request is not None and request.id == "a" and room.clerk.next() is None
    done = room.clerk.sign(Control(5, "pause", "saved", "a"))
    assert (done.who, done.channel) == ("anna@host", "cli")


@pytest.mark.parametrize(
    ("prepare", "when"),
    [
        (lambda clerk: clerk.during("the evaluation"), "after the evaluation"),
        (lambda clerk: setattr(clerk, "is_at_edge", True), "now"),
    ],
)
def test_it_is_said_when_the_run_will_act(room: Room, prepare: Callable[[Clerk], Any], when: str) -> None:
    if (entered := prepare(room.clerk)) is not None:
        entered.__enter__()
    room.ask({"id": "a"})
    room.clerk.look()
    assert [each.reason for each in room.told if isinstance(each, Control)] == [f"stop: acts {when}"]
    assert room.clerk.is_stop_waiting


def test_what_the_run_cannot_do_is_refused_and_what_another_attempt_was_asked_is_void(room: Room) -> None:
    room.ask(
        {"id": "a", "action": "evaluate"}, {"id": "b", "attempt": "before"}, {"id": "c", "attempt": "now"}
    )
    room.clerk.look()
    assert room.answers() == [("refuse", "a"), ("void", "b"), ("accept", "c")]
    assert "evaluate: it has no validation samples" in str(room.told[0])
    assert [room.clerk.next(), room.clerk.next()] == [Request("c", "stop", attempt="now"), None]


def test_requests_that_an_earlier_attempt_left_open_are_void(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.ask({"id": "a"}, {"id": "b"})
    later = Room(tmp_path, known=frozenset({"a"}))
    later.ask({"id": "a"}, {"id": "c"})
    later.clerk.void_stale({"a"})
    later.clerk.look()
    assert later.answers() == [("void", "b"), ("accept", "c")]  # the same id acts once, also over a restart


def test_a_flood_is_answered_one_by_one_and_costs_a_hundred_acts_at_most(room: Room) -> None:
    room.ask(*[{"id": f"r-{number}", "action": "checkpoint"} for number in range(10_000)])
    room.clerk.look()
    actions = [action for action, _ in room.answers()]
    assert (actions.count("accept"), actions.count("refuse")) == (100, 9_900)
    waiting = 0
    while room.clerk.next():
        waiting += 1
    assert waiting == 100


def test_the_thread_answers_while_the_run_does_something_else_and_ends_with_it(room: Room) -> None:
    room.clerk.start()
    room.ask({"id": "a"})
    assert room.came.wait(60)
    room.ask({"id": "b"})
    room.clerk.close()
    assert room.answers() == [("accept", "a"), ("refuse", "a"), ("refuse", "b")]
    assert "clerk" not in [thread.name for thread in threading.enumerate()]


def test_a_line_that_is_no_request_is_named(room: Room) -> None:
    room.path.write_text("stop!\n")
    room.clerk.look()
    (found,) = room.told
    assert isinstance(found, Finding) and found.what == "a request cannot be read"

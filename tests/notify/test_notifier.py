"""The notifier: one message once under every fault, quotas, what is held, and ends of processes."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.notify.line import Line
from etude.notify.message import Message
from etude.notify.notifier import Notifier, Pace, Sender
from etude.notify.outbox import FILE, Entry, Outbox, read_outbox
from etude.notify.outcome import Outcome, Room
from etude.recipe.notify import Notify
from etude.records.ledger import Ledger
from etude.records.store import Run
from tests.notify.server import TOKEN, USER, Service, serving, wait_until

QUICK = Pace(tries=8, pause=0.001, longest=0.01)
KINDS = ["fault", "finding", "stopped", "finished", "milestone", "evaluation"]


def message(number: int = 0, kind: str = "fault", severity: str = "error") -> Message:
    return Message(kind, severity, f"{kind} {number}", "run", number, f"title {number}", "text")


def settings_of(**values: Any) -> Notify:
    return Notify(channel="line", on=KINDS, **values)


class Heard:
    """A channel of a test: what it was sent, and outcomes to come."""

    identity = "heard"

    def __init__(self, outcomes: list[Outcome] | None = None, room: Room | None = None) -> None:
        self.outcomes, self.messages, self._room = outcomes or [], list[Message](), room
        self.gate = threading.Event()
        self.gate.set()

    def send(self, message: Message, key: str) -> Outcome:
        self.gate.wait(30)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome("sent")
        if outcome.state == "sent":
            self.messages.append(message)
        return outcome

    def room(self) -> Room | None:
        return self._room and Room(self._room.left - len(self.messages), self._room.most)


def sender(folder: Path, channel: Any, setup: Notify, said: list[str]) -> tuple[Sender, Outbox]:
    outbox = Outbox(folder / FILE)
    return Sender(setup, channel, outbox, said.append, QUICK), outbox


def tell(folder: Path, channel: Any, messages: list[Message], setup: Notify | None = None) -> list[str]:
    """Send messages through a channel as one process does; returns what it warned of."""
    said: list[str] = []
    one, outbox = sender(folder, channel, setup or settings_of(), said)
    for each in messages:
        if outbox.add(each, [one.name]):
            one.put(each)
    deadline = time.monotonic() + 30
    one.finish(deadline)
    one.wait(deadline)
    outbox.close()
    return said


def states(folder: Path) -> list[str]:
    return [state for entry in read_outbox(folder / FILE).values() for state, _ in entry.states.values()]


FAULTS = st.lists(st.sampled_from(["ok", "500", "lost", "drop", "rate"]), max_size=12)


@given(FAULTS, st.integers(1, 3))
@settings(max_examples=25)
def test_each_message_is_delivered_once_under_every_series_of_faults(
    tmp_path_factory: pytest.TempPathFactory, faults: list[str], count: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with serving(Service(faults)) as service:
        messages = [message(number) for number in range(count)]
        for _ in range(3):  # processes one after another: what one leaves, the next sends
            channel = Line(TOKEN, USER, api=service.url, seconds=0.05)
            channel._judge_limit = lambda: Outcome("later", "rate", 0.001)  # type: ignore[method-assign]
            said: list[str] = []
            one, outbox = sender(folder, channel, settings_of(), said)
            for entry in outbox.entries.values():
                one.take_over(entry.message, *entry.states[one.name])
            for each in messages:
                if outbox.add(each, [one.name]):
                    one.put(each)
            deadline = time.monotonic() + 30
            one.finish(deadline)
            one.wait(deadline)
            outbox.close()
        assert sorted(service.delivered) == sorted(each.full for each in messages)
    assert states(folder) == ["sent"] * count


@given(st.lists(st.sampled_from(KINDS), max_size=40), st.integers(0, 30), st.data())
@settings(max_examples=15)
def test_no_quota_of_the_service_is_passed_and_what_is_held_comes_in_one_message(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], quota: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    faults = data.draw(st.lists(st.sampled_from(["ok", "500", "drop"]), max_size=4))
    with serving(Service(faults, quota=quota)) as service:
        messages = [message(number, kind, "info") for number, kind in enumerate(kinds)]
        tell(folder, Line(TOKEN, USER, api=service.url, seconds=0.3), messages)
        assert service.used == len(service.delivered) <= quota
        entries = read_outbox(folder / FILE)
        joined = [each for each in entries.values() if "joined" in each.states["line"]]
        sent = [each for each in entries.values() if "sent" in each.states["line"]]
        assert len(sent) == len(service.delivered)
        for each in joined:
            assert any(each.message.title in text for text in service.delivered) or "held" in states(folder)


@pytest.mark.parametrize("key", ["per_day", "per_month"])
def test_the_quota_of_the_recipe_holds_over_processes_and_keeps_the_last_messages_for_faults(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    channels = [Heard() for _ in range(3)]
    for number, channel in enumerate(channels):
        (tmp_path / str(number)).mkdir()
        several = [message(10 * number + each, "finding", "warning") for each in range(4)]
        tell(tmp_path / str(number), channel, several, settings_of(**{key: 10}))
    lesser = [each for channel in channels for each in channel.messages]
    assert [len(channel.messages) for channel in channels] == [4, 4, 1]
    assert lesser[-1].cause.startswith("digest")  # of the third process, which had two left to keep
    (tmp_path / "last").mkdir()
    last = Heard()
    tell(tmp_path / "last", last, [message(number) for number in range(5)], settings_of(**{key: 10}))
    assert [each.cause for each in last.messages] == ["fault 0"]
    assert states(tmp_path / "last") == ["sent", *["joined"] * 4, "held"]


def test_a_fault_takes_the_messages_that_lesser_ones_leave(tmp_path: Path) -> None:
    channel = Heard(room=Room(4, 20))
    tell(tmp_path, channel, [message(1, "milestone", "info"), message(2), message(3, "finished", "info")])
    assert [each.cause for each in channel.messages[:2]] == ["fault 2", "finished 3"]
    assert channel.messages[2].cause.startswith("digest") and "title 1" in channel.messages[2].text


def test_a_refused_token_is_named_once_and_ends_the_channel_for_this_process(tmp_path: Path) -> None:
    with serving(Service(["401"] * 9)) as service:
        said = tell(tmp_path, Line(TOKEN, USER, api=service.url), [message(each) for each in range(3)])
        assert len(service.bodies) == 1 and len(said) == 1 and "refused the token" in said[0]
    assert states(tmp_path) == ["not sent"] * 3


def test_a_flood_is_sent_by_what_matters_most_and_the_rest_in_one_message(tmp_path: Path) -> None:
    channel = Heard()
    channel.gate.clear()
    said: list[str] = []
    one, outbox = sender(tmp_path, channel, settings_of(), said)
    flood = [message(number, "finding", "warning") for number in range(200)]
    for each in [*flood, message(999)]:
        outbox.add(each, [one.name])
        one.put(each)
    channel.gate.set()
    deadline = time.monotonic() + 30
    one.finish(deadline)
    one.wait(deadline)
    causes = [each.cause for each in channel.messages]
    assert "fault 999" in causes[:2] and len(causes) < 20 and causes[-1].startswith("digest")
    assert len(read_outbox(tmp_path / FILE)) == 202


def test_a_channel_that_hangs_or_fails_costs_neither_the_others_nor_the_caller(tmp_path: Path) -> None:
    class Broken(Heard):
        def send(self, message: Message, key: str) -> Outcome:
            raise RuntimeError("odd\x1b package")

    run = Run(tmp_path)
    hanging, broken, sound = Heard(), Broken(), Heard()
    hanging.gate.clear()
    setups = [settings_of(name=name) for name in ("hanging", "broken", "sound")]
    notifier = Notifier(run, Ledger([], [], []), setups, [hanging, broken, sound], print, pace=QUICK)
    notifier.tell(message())
    wait_until(lambda: sound.messages)
    notifier.close(0.2)
    ((_, entry),) = read_outbox(tmp_path / FILE).items()
    assert entry.states["sound"] == ("sent", "")
    assert entry.states["hanging"] == ("not sent", "the process ended before it went through")
    assert entry.states["broken"] == ("not sent", "RuntimeError: odd\\x1b package")
    hanging.gate.set()


def test_one_cause_is_told_once_also_by_the_next_process(tmp_path: Path) -> None:
    first, second = Heard(), Heard()
    for channel in (first, second):
        notifier = Notifier(Run(tmp_path), Ledger([], [], []), [settings_of()], [channel], print, pace=QUICK)
        for _ in range(50):
            notifier.tell(message())
        notifier.close()
    assert len(first.messages) == 1 and not second.messages


def test_the_next_process_sends_what_matters_of_one_that_died_and_not_what_is_old(tmp_path: Path) -> None:
    old = Message("fault", "error", "old", "run", 1, "old", "", time=time.time() - 90_000)
    outbox = Outbox(tmp_path / FILE)
    for each in (old, message(1), message(2, "evaluation", "info"), message(3, "stopped", "info")):
        outbox.add(each, ["line"])
    outbox.close()
    channel = Heard()
    Notifier(Run(tmp_path), Ledger([], [], []), [settings_of()], [channel], print, pace=QUICK).close()
    assert [each.cause for each in channel.messages] == ["fault 1", "stopped 3"]


def test_findings_below_the_severity_and_kinds_that_are_not_asked_for_are_no_messages(tmp_path: Path) -> None:
    setup = Notify(channel="line", on=["finding"], severity="error")
    channel = Heard()
    notifier = Notifier(Run(tmp_path), Ledger([], [], []), [setup], [channel], print, pace=QUICK)
    for each in (message(1, "finding", "warning"), message(2, "finding", "error"), message(3)):
        notifier.tell(each)
    notifier.close()
    assert [each.cause for each in channel.messages] == ["finding 2"]
    assert [type(each) for each in read_outbox(tmp_path / FILE).values()] == [Entry]

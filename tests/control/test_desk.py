import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.control.clerk import Clerk
from etude.control.desk import Decision, Desk
from etude.control.mailbox import FILE, Mailbox
from etude.errors import InputError
from etude.recipe.course import Change, Course
from etude.recipe.schema import Recipe
from etude.records.events import Control, Event

Make = Callable[..., Recipe]


class Office:
    """A desk whose signals, ranks and records stand in lists."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.path = folder / FILE
        self.signals: list[str | None] = [None]
        self.told: list[Event] = []
        self.states: list[str] = []
        self.agreed: list[Any] = []
        self.settled: list[int] = []
        self.course = Course(recipe, 12)
        self.clerk = Clerk(
            mailbox=Mailbox(self.path), attempt="now", check=lambda request: None, step=lambda: 4,
            edge=lambda: 5, tell=lambda *events: self.told.extend(events),
        )  # fmt: skip
        self.desk = Desk(
            clerk=self.clerk, asked=lambda: self.signals[-1], agree=self._agree,
            settle=lambda: self.settled.append(1), course_at=self._course_at, tell=self.told.append, beat=self._beat,
        )  # fmt: skip
        self.while_paused: list[dict[str, Any]] = []

    def answers(self, *actions: str) -> list[tuple[str, str | None, str]]:
        """Records of what was decided about requests, without the promises."""
        controls = [each for each in self.told if isinstance(each, Control) and each.action != "accept"]
        return [(each.action, each.request, each.reason) for each in controls]

    def ask(self, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def decide(self, exhausted: str | None = None) -> Decision:
        return self.desk.decide(self.course, 4, exhausted)

    def _course_at(self, step: int) -> Course:
        if step != 2:
            raise InputError(f"run tiny has no checkpoint of step {step}")
        return self.course

    def _agree(self, value: Any) -> Any:
        self.agreed.append(json.loads(json.dumps(value)))
        return self.agreed[-1]

    def _beat(self, state: str) -> None:
        self.states.append(state)
        if len(self.states) > 1 and self.while_paused:
            self.ask(**self.while_paused.pop(0))


@pytest.fixture
def office(tmp_path: Path, make_recipe: Make) -> Office:
    return Office(tmp_path, make_recipe())


def test_without_any_cause_a_run_goes_on(office: Office) -> None:
    assert office.decide() == Decision("go") and office.told == []


def test_a_signal_stops_a_run_that_the_same_command_continues(office: Office) -> None:
    office.signals.append("SIGTERM")
    assert office.decide("no improvement in 2 evaluations") == Decision(
        "stop", "SIGTERM was received", is_asked=True
    )


def test_patience_ends_a_run_before_a_request_does(office: Office) -> None:
    office.ask(id="a", action="stop")
    assert office.decide("no improvement in 2 evaluations") == Decision(
        "stop", "no improvement in 2 evaluations"
    )
    office.clerk.close()
    assert office.answers() == [("refuse", "a", "stop: the run ends here")]


def test_requests_are_answered_one_at_a_time_in_their_order(office: Office) -> None:
    office.ask(id="a", action="set", key="optim.learning_rate", value=1e-4, reason="it jumps")
    office.ask(id="b", action="stop", reason="enough")
    change = Change(4, "optim.learning_rate", 1e-4, "it jumps", "a")
    assert office.decide() == Decision("change", "it jumps", "a", change)
    assert office.decide() == Decision("stop", "enough", "b", is_asked=True)
    assert [value["request"] for value in office.agreed] == ["a", "b"]


def test_a_change_that_cannot_be_made_is_refused_with_its_line(office: Office) -> None:
    office.ask(id="a", action="set", key="optim.learning_rate", value=-1)
    office.ask(id="b", action="set", key="seed", value=1)
    assert office.decide() == Decision("go")
    first, second = office.answers()
    assert (first[:2], second[:2]) == (("refuse", "a"), ("refuse", "b"))
    assert "optim.learning_rate (change at step 4) is -1; it must be above 0" in first[2]
    assert "cannot be changed while a run goes on" in second[2]


def test_a_run_goes_back_to_a_checkpoint_of_an_earlier_step_with_a_change(office: Office) -> None:
    office.ask(id="a", action="back", step=2, key="optim.learning_rate", value=1e-4, reason="it jumps")
    change = Change(2, "optim.learning_rate", 1e-4, "it jumps", "a")
    assert office.decide() == Decision("back", "it jumps", "a", change)


def test_a_run_that_cannot_go_back_is_told_why(office: Office) -> None:
    values = {"action": "back", "key": "optim.learning_rate", "value": 1e-4}
    for step in (1, 4, 9):
        office.ask(id=f"at-{step}", step=step, **values)
    office.ask(id="wrong", step=2, **{**values, "value": 0})
    assert office.decide() == Decision("go")
    reasons = [reason.partition(": ")[2] for _, _, reason in office.answers()]
    assert reasons[:3] == [
        "run tiny has no checkpoint of step 1", "step 4 is not before step 4", "step 9 is not before step 4",
    ]  # fmt: skip
    assert reasons[3].startswith("optim.learning_rate (change at step 2) is 0; it must be above 0")


def test_a_pause_waits_for_a_request_and_takes_changes_meanwhile(office: Office) -> None:
    office.ask(id="a", action="pause")
    assert office.decide() == Decision("pause", "it was asked to", "a")
    office.while_paused = [
        {"id": "b", "action": "pause"}, {"id": "c", "action": "set", "key": "train.max_grad_norm", "value": None},
    ]  # fmt: skip
    assert office.decide().change == Change(4, "train.max_grad_norm", None, "", "c")
    office.while_paused = [{"id": "d", "action": "resume", "reason": "lunch is over"}]
    assert office.decide() == Decision("resume", "lunch is over", "d")
    assert office.answers() == [("refuse", "b", "pause: the run is paused already")]
    assert office.states[0] == "paused" and office.states[-1] == "running"
    assert office.decide() == Decision("go")


def test_a_signal_ends_a_pause(office: Office) -> None:
    office.ask(id="a", action="pause")
    office.decide()
    office.signals.append("SIGINT")
    assert office.decide() == Decision("stop", "Ctrl-C was received", is_asked=True)


def test_to_resume_is_refused_where_nothing_is_paused(office: Office) -> None:
    office.ask(id="a", action="resume")
    assert office.decide() == Decision("go")
    assert office.answers() == [("refuse", "a", "resume: the run is not paused")]


@pytest.mark.parametrize(
    ("values", "decision"),
    [
        ({"action": "checkpoint"}, Decision("checkpoint", "it was asked to", "a")),
        ({"action": "evaluate"}, Decision("evaluate", "it was asked to", "a")),
        ({"action": "generate", "text": "def "}, Decision("generate", "it was asked to", "a", text="def ")),
        ({"action": "note", "text": "odd"}, Decision("note", "it was asked to", "a", text="odd")),
        (
            {"action": "pause", "release": True, "reason": "night"},
            Decision("stop", "night", "a", is_asked=True, is_paused=True),
        ),
    ],
)
def test_a_request_leads_to_its_decision(office: Office, values: dict[str, Any], decision: Decision) -> None:
    office.ask(id="a", **values)
    assert office.decide() == decision and not office.desk.is_paused


def test_a_signal_ahead_of_the_limit_of_a_cluster_pauses(office: Office) -> None:
    office.signals.append("SIGUSR1")
    assert office.decide() == Decision("stop", "SIGUSR1 was received", is_asked=True, is_paused=True)


def test_a_line_that_is_no_request_is_told_and_costs_nothing(office: Office) -> None:
    office.path.write_text("stop!\n")
    assert office.decide() == Decision("go")
    assert "a request cannot be read" in str(office.told[0])


def test_other_ranks_take_the_decision_of_the_first_however_long(make_recipe: Make) -> None:
    reason, words = "r" * 100_000, []
    change = Change(4, "optim.learning_rate", 1e-4, reason)
    value = {
        "kind": "change", "reason": reason, "request": "a", "is_asked": False, "is_paused": False, "text": "",
        "change": {"step": 4, "key": "optim.learning_rate", "value": 1e-4, "reason": reason},
    }  # fmt: skip
    desk = Desk(
        clerk=None, asked=lambda: words.append("asked") or None, agree=lambda mine: value if mine is None else 0,
        settle=lambda: None, course_at=Course, tell=print, beat=print,
    )  # fmt: skip
    assert desk.decide(Course(make_recipe(), 12), 4, None) == Decision("change", reason, "a", change)
    assert words == ["asked"]  # its own signals reach the first rank

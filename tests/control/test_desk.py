import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
        self.desk = Desk(
            mailbox=Mailbox(self.path), asked=lambda: self.signals[-1], agree=self._agree,
            settle=lambda: self.settled.append(1), course_at=self._course_at, tell=self.told.append, beat=self._beat,
        )  # fmt: skip
        self.while_paused: list[dict[str, Any]] = []

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
    office.desk.close(4)
    assert office.told == [Control(4, "refuse", "stop: the run ends here", "a")]


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
    assert [(each.action, each.request) for each in office.told if isinstance(each, Control)] == [
        ("refuse", "a"), ("refuse", "b"),
    ]  # fmt: skip
    assert "optim.learning_rate (change at step 4) is -1; it must be above 0" in str(office.told[0])
    assert "cannot be changed while a run goes on" in str(office.told[1])


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
    reasons = [each.reason.removeprefix("back: ") for each in office.told if isinstance(each, Control)]
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
    office.while_paused = [{"id": "d", "action": "go on", "reason": "lunch is over"}]
    assert office.decide() == Decision("go", "lunch is over", "d")
    assert office.told == [Control(4, "refuse", "pause: the run is paused already", "b")]
    assert office.states[0] == "paused" and office.states[-1] == "running"
    assert office.decide() == Decision("go")


def test_a_signal_ends_a_pause(office: Office) -> None:
    office.ask(id="a", action="pause")
    office.decide()
    office.signals.append("SIGINT")
    assert office.decide() == Decision("stop", "Ctrl-C was received", is_asked=True)


def test_to_go_on_is_refused_where_nothing_is_paused(office: Office) -> None:
    office.ask(id="a", action="go on")
    assert office.decide() == Decision("go")
    assert office.told == [Control(4, "refuse", "go on: the run is not paused", "a")]


def test_a_line_that_is_no_request_is_told_and_costs_nothing(office: Office) -> None:
    office.path.write_text("stop!\n")
    assert office.decide() == Decision("go")
    assert "a request cannot be read" in str(office.told[0])


def test_other_ranks_take_the_decision_of_the_first_however_long(make_recipe: Make) -> None:
    reason, words = "r" * 100_000, []
    change = Change(4, "optim.learning_rate", 1e-4, reason)
    value = {
        "kind": "change", "reason": reason, "request": "a", "is_asked": False,
        "change": {"step": 4, "key": "optim.learning_rate", "value": 1e-4, "reason": reason},
    }  # fmt: skip
    desk = Desk(
        mailbox=None, asked=lambda: words.append("asked") or None, agree=lambda mine: value if mine is None else 0,
        settle=lambda: None, course_at=Course, tell=print, beat=print,
    )  # fmt: skip
    assert desk.decide(Course(make_recipe(), 12), 4, None) == Decision("change", reason, "a", change)
    assert words == ["asked"]  # its own signals reach the first rank

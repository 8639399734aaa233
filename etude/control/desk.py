"""The one place where it is decided how a run goes on after a step."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from etude.control.clerk import Clerk
from etude.control.mailbox import Request
from etude.control.signals import PAUSES, signal_title
from etude.errors import EtudeError, InputError
from etude.recipe.course import Change, Course
from etude.records.events import Control, Event

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Decision:
    """The way on after a step, the same on every rank; to fail is to save and end with an error.

    request    the id of the request that it answers
    change     of the course; to go back is to go on from the checkpoint of its step with it
    text       a prompt to continue, or what is noted
    is_asked   whether a person or a signal asked to stop: the same command continues the run
    is_paused  whether it then ends as paused
    """

    kind: Literal[
        "go", "stop", "pause", "resume", "checkpoint", "evaluate", "generate", "note", "change", "back",
        "fail",
    ]  # fmt: skip
    reason: str = ""
    request: str | None = None
    change: Change | None = None
    text: str = ""
    is_asked: bool = False
    is_paused: bool = False


@dataclass(kw_only=True)
class Desk:
    """Makes one decision at a time from signals, the judge's patience, the watch and requests.

    clerk      takes requests, on the rank that holds the run folder and decides for all
    asked      the name of the signal that asked this rank or another to stop
    agree      gives every rank the value of the rank that decides
    settle     waits for the checkpoint that is being written, so that none comes or goes after a look
    course_at  the course in the checkpoint of a step; raises EtudeError if a run cannot go back to it
    tell       records requests that are refused
    beat       shows that the run is alive, and whether it is paused
    watch      the decision that findings about the run lead to, if any
    why_leave  the reason to save and leave the rest to a later session, if any
    is_paused  whether the run waits, on every rank
    """

    clerk: Clerk | None
    asked: Callable[[], str | None]
    agree: Callable[[Any], Any]
    settle: Callable[[], None]
    course_at: Callable[[int], Course]
    tell: Callable[[Event], None]
    beat: Callable[[str], None]
    watch: Callable[[Course, int], Decision | None] = lambda course, step: None
    why_leave: Callable[[], str | None] = lambda: None
    is_paused: bool = field(default=False, init=False)

    def decide(self, course: Course, step: int, exhausted: str | None) -> Decision:
        """The next decision after a step; a paused run waits here. exhausted: the reason to stop early."""
        values = None
        if self.clerk is not None:
            self.clerk.is_at_edge = True
            values = asdict(self._decide(self.clerk, course, step, exhausted))
            self.clerk.is_at_edge = False
        else:
            self.asked()  # which tells the rank that decides
        values = self.agree(values)
        change = values["change"]
        decision = Decision(**{**values, "change": Change(**change) if change else None})
        self.is_paused = decision.kind == "pause" or (self.is_paused and decision.kind != "resume")
        return decision

    def end(self) -> None:
        """Take no more requests."""
        if self.clerk is not None:
            self.clerk.end()

    def sign(self, control: Control) -> Control:
        """An answer with the name of who asked."""
        return self.clerk.sign(control) if self.clerk else control

    def _decide(self, clerk: Clerk, course: Course, step: int, exhausted: str | None) -> Decision:
        while True:
            if signal := self.asked():
                what = f"{signal_title(signal)} was received"
                return Decision("stop", what, is_asked=True, is_paused=signal in PAUSES)
            if exhausted:
                return Decision("stop", exhausted)
            if reason := self.why_leave():
                return Decision("stop", reason, is_asked=True, is_paused=True)
            if decision := self.watch(course, step):
                return decision
            clerk.look()
            while request := clerk.next():
                if decision := self._answer(clerk, request, course, step):
                    return decision
            if not self.is_paused:
                return Decision("go")
            self.beat("paused")
            time.sleep(_LOOK_SECONDS)

    def _answer(self, clerk: Clerk, request: Request, course: Course, step: int) -> Decision | None:
        """The decision that a request asks for; None if it is refused."""
        reason = request.reason or "it was asked to"
        match request.action:
            case "set" | "back":
                return self._change(clerk, request, course, step)
            case "stop":
                return Decision("stop", request.reason or "it was asked to stop", request.id, is_asked=True)
            case "pause" if request.release:
                return Decision("stop", reason, request.id, is_asked=True, is_paused=True)
            case "pause" | "resume":
                if self.is_paused == (request.action == "pause"):
                    said = "paused already" if self.is_paused else "not paused"
                    self.tell(clerk.refusal(request, f"the run is {said}"))
                    return None
                self.beat("paused" if request.action == "pause" else "running")
        return Decision(request.action, reason, request.id, text=request.text)  # type: ignore[arg-type]

    def _change(self, clerk: Clerk, request: Request, course: Course, step: int) -> Decision | None:
        """The decision to change the course from here on, or from an earlier checkpoint on."""
        start, key = step if request.step is None else request.step, request.key or ""
        who = {"who": request.who or None, "channel": request.channel or None}
        change = Change(start, key, request.value, request.reason, request.id, **who)
        if start < step:
            self.settle()
        try:
            if start > step or (request.action == "back" and start == step):
                raise InputError(f"step {start:,} is not before step {step:,}")
            (course if start == step else self.course_at(start)).with_changes([change])
        except EtudeError as error:
            self.tell(clerk.refusal(request, str(error).splitlines()[0]))
            return None
        return Decision("change" if start == step else "back", request.reason, request.id, change)

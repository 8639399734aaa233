"""The one place where it is decided how a run goes on after a step."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from etude.control.mailbox import Mailbox, Request
from etude.control.signals import signal_title
from etude.errors import EtudeError, InputError
from etude.recipe.course import Change, Course
from etude.records.events import Control, Event, Finding

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Decision:
    """The way on after a step, the same on every rank; to fail is to save and end with an error.

    request   the id of the request that it answers
    change    of the course; to go back is to go on from the checkpoint of its step with it
    is_asked  whether a person or a signal asked to stop: the same command continues the run
    """

    kind: Literal["go", "stop", "pause", "change", "back", "fail"]
    reason: str = ""
    request: str | None = None
    change: Change | None = None
    is_asked: bool = False


@dataclass(kw_only=True)
class Desk:
    """Makes one decision at a time from signals, the judge's patience, the watch and requests.

    mailbox    of the run, on the rank that holds its folder and decides for all
    asked      the name of the signal that asked this rank or another to stop
    agree      gives every rank the value of the rank that decides
    settle     waits for the checkpoint that is being written, so that none comes or goes after a look
    course_at  the course in the checkpoint of a step; raises EtudeError if a run cannot go back to it
    tell       records requests that are refused
    beat       shows that the run is alive, and whether it is paused
    watch      the decision that findings about the run lead to, if any
    why_leave  the reason to save and leave the rest to a later session, if any
    """

    mailbox: Mailbox | None
    asked: Callable[[], str | None]
    agree: Callable[[Any], Any]
    settle: Callable[[], None]
    course_at: Callable[[int], Course]
    tell: Callable[[Event], None]
    beat: Callable[[str], None]
    watch: Callable[[Course, int], Decision | None] = lambda course, step: None
    why_leave: Callable[[], str | None] = lambda: None
    is_paused: bool = False

    def decide(self, course: Course, step: int, exhausted: str | None) -> Decision:
        """The next decision after a step; a paused run waits here. exhausted: the reason to stop early."""
        values = None
        if self.mailbox is not None:
            values = asdict(self._decide(self.mailbox, course, step, exhausted))
        else:
            self.asked()  # which tells the rank that decides
        values = self.agree(values)
        change = values["change"]
        return Decision(**{**values, "change": Change(**change) if change else None})

    def close(self, step: int) -> None:
        """Refuse the requests that came too late for the run."""
        if self.mailbox is not None:
            self._look(self.mailbox, step)
            while request := self.mailbox.next():
                self._refuse(request, step, "the run ends here")

    def _decide(self, mailbox: Mailbox, course: Course, step: int, exhausted: str | None) -> Decision:
        while True:
            if signal := self.asked():
                return Decision("stop", f"{signal_title(signal)} was received", is_asked=True)
            if exhausted:
                return Decision("stop", exhausted)
            if reason := self.why_leave():
                return Decision("stop", reason, is_asked=True)
            if decision := self.watch(course, step):
                return decision
            self._look(mailbox, step)
            while request := mailbox.next():
                if decision := self._answer(request, course, step):
                    return decision
            if not self.is_paused:
                return Decision("go")
            self.beat("paused")
            time.sleep(_LOOK_SECONDS)

    def _look(self, mailbox: Mailbox, step: int) -> None:
        advice = "nothing was done for it; ask again"
        for problem in mailbox.look():
            self.tell(Finding(step, "a request cannot be read", problem, advice))

    def _answer(self, request: Request, course: Course, step: int) -> Decision | None:
        """The decision that a request asks for; None if it is refused."""
        if request.key is not None:
            return self._change(request, request.key, course, step)
        if request.action == "stop":
            return Decision("stop", request.reason or "it was asked to stop", request.id, is_asked=True)
        is_pause = request.action == "pause"
        if self.is_paused == is_pause:
            self._refuse(request, step, f"the run is {'paused already' if is_pause else 'not paused'}")
            return None
        self.is_paused = is_pause
        self.beat("paused" if is_pause else "running")
        return Decision("pause" if is_pause else "go", request.reason or "it was asked to", request.id)

    def _change(self, request: Request, key: str, course: Course, step: int) -> Decision | None:
        """The decision to change the course from here on, or from an earlier checkpoint on."""
        start = step if request.step is None else request.step
        change = Change(start, key, request.value, request.reason, request.id)
        if start < step:
            self.settle()
        try:
            if start > step or (request.action == "back" and start == step):
                raise InputError(f"step {start:,} is not before step {step:,}")
            (course if start == step else self.course_at(start)).with_changes([change])
        except EtudeError as error:
            self._refuse(request, step, str(error).splitlines()[0])
            return None
        return Decision("change" if start == step else "back", request.reason, request.id, change)

    def _refuse(self, request: Request, step: int, reason: str) -> None:
        self.tell(Control(step, "refuse", f"{request.action}: {reason}", request.id))

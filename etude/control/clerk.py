"""The thread that answers requests at once, wherever the run is; the desk acts on them after a step."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from etude.control.mailbox import Mailbox, Request
from etude.errors import EtudeError
from etude.records.events import ACCEPT, Control, Event, Finding

_LOOK_SECONDS = 0.5
_MOST_WAITING = 100  # requests; a flood costs the run no time
_MOST_KNOWN = 100_000
_ENDS = "the run ends here"


@dataclass
class Clerk:
    """Looks at the mailbox twice a second, and says of each request: accepted, refused or void.

    attempt  the name by which requests mean this process
    check    raises EtudeError for what the run cannot do
    step     the step that was made last, and `edge` the one after which the run can act next
    tell     records answers, from any thread

    is_at_edge  whether the run is between two steps, where the desk acts at once
    """

    mailbox: Mailbox
    attempt: str
    check: Callable[[Request], None]
    step: Callable[[], int]
    edge: Callable[[], int]
    tell: Callable[..., None]
    is_at_edge: bool = field(default=False, init=False)
    _waiting: deque[Request] = field(default_factory=deque)
    _known: dict[str, Request] = field(default_factory=dict)
    _is_ending: bool = False
    _place: list[str] = field(default_factory=list)
    _turn: threading.RLock = field(default_factory=threading.RLock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Look on from now on, in a daemon thread: the run does not wait for it."""
        self._thread = threading.Thread(target=self._look_on, name="clerk", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Answer what came since the last look."""
        with self._turn:
            requests, problems = self.mailbox.look()
            if not requests and not problems:
                return
            step = self.step()
            advice = "nothing was done for it; ask again"
            found: list[Event] = [
                Finding(step, "a request cannot be read", problem, advice) for problem in problems
            ]
            # In one write, and before the desk can take the first of them.
            accepted: list[Request] = []
            found += [self._answer(request, step, accepted) for request in requests]
            self.tell(*found)
            self._waiting += accepted

    def next(self) -> Request | None:
        """The request that waits longest, or None."""
        with self._turn:
            return self._waiting.popleft() if self._waiting else None

    @property
    def is_stop_waiting(self) -> bool:
        """True if somebody asked the process to end."""
        with self._turn:
            return any(each.action == "stop" or each.release for each in self._waiting)

    def sign(self, control: Control) -> Control:
        """An answer with the name of who asked, and the channel."""
        asked = self._known.get(control.request or "")
        return _signed(control, asked) if asked else control

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """While entered, requests are told that they wait for this to end."""
        self._place.append(what)
        try:
            yield
        finally:
            self._place.pop()

    def void_stale(self, done: Collection[str]) -> None:
        """Answer the requests that earlier attempts left open. done: ids of those that are answered."""
        stale, self.mailbox.stale = self.mailbox.stale, []
        open_ones = {each.id: each for each in stale if each.id not in done}
        with self._turn:
            self.tell(*[self._void(each, self.step()) for each in open_ones.values()])

    def end(self) -> None:
        """Refuse what waits, and all that comes from now on: how the run ends is decided."""
        with self._turn:
            self._is_ending = True
            while request := self.next():
                self.tell(self.refusal(request, _ENDS))

    def close(self) -> None:
        """Look on no more, and refuse the requests that came too late for the run."""
        self._closed.set()
        if self._thread:
            self._thread.join()
        self.end()
        self.look()

    def refusal(self, request: Request, reason: str) -> Control:
        """The record that a request is refused."""
        return self._record(request, "refuse", self.step(), f"{request}: {reason}")

    def _look_on(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            try:
                self.look()
            except EtudeError:  # of a disk that fails, which stops the run itself at its next record
                return

    def _answer(self, request: Request, step: int, accepted: list[Request]) -> Control:
        if len(self._known) < _MOST_KNOWN:
            self._known[request.id] = request
        if request.attempt not in (None, self.attempt):
            return self._void(request, step)
        if self._is_ending:
            return self.refusal(request, _ENDS)
        if len(self._waiting) + len(accepted) >= _MOST_WAITING:
            return self.refusal(request, f"{_MOST_WAITING} requests wait already; ask again later")
        try:
            self.check(request)
        except EtudeError as error:
            return self.refusal(request, str(error).splitlines()[0])
        accepted.append(request)
        after = self._place[-1] if self._place else f"step {self.edge():,}"
        when = "now" if self.is_at_edge else f"after {after}"
        return self._record(request, ACCEPT, step, f"{request}: acts {when}")

    def _void(self, request: Request, step: int) -> Control:
        return self._record(request, "void", step, f"{request}: it was meant for an earlier attempt")

    @staticmethod
    def _record(request: Request, action: str, step: int, reason: str) -> Control:
        return _signed(Control(step, action, reason, request.id), request)


def _signed(control: Control, request: Request) -> Control:
    return replace(control, who=request.who or None, channel=request.channel or None)

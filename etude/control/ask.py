"""A request to a run by another process, and the wait for what the run says and does."""

import time
from collections.abc import Iterator
from typing import Any

from etude.control.mailbox import is_going_on, post
from etude.errors import FaultError
from etude.records.events import ACCEPT, Control
from etude.records.journal import read_after
from etude.records.store import Run

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0  # for the first answer, which a run that is well gives within five


class Asked:
    """A request that was made of a run. Raises: as `post`."""

    def __init__(self, run: Run, action: str, **values: Any) -> None:
        self._run, self._journal = run, run.path / "journal.jsonl"
        self._place = self._journal.stat().st_size if self._journal.exists() else 0
        self.id = post(run, action, **values)

    def answers(self, patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[Control]:
        """The answers as they come, the last of them the one that says what was done.

        Raises: FaultError if there is none in time, or the run ends before the last.
        """
        deadline, is_heard = time.monotonic() + patience_seconds, False
        while True:
            is_on = is_going_on(self._run)  # before the look, so that no answer is missed
            events, self._place = read_after(self._journal, self._place)
            for event in events:
                if isinstance(event, Control) and event.request == self.id:
                    is_heard = True
                    yield event
                    if event.action != ACCEPT:
                        return
            if not is_on:
                state = self._run.state
                raise FaultError(
                    f"run {self._run.name} is {state}; it ended before it did this; see etude runs"
                )
            if not is_heard and time.monotonic() > deadline:
                raise FaultError(
                    f"run {self._run.name} has not answered in {patience_seconds:.0f} s; its process may "
                    "hang; what was asked waits for it"
                )
            time.sleep(_LOOK_SECONDS)

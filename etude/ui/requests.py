"""Requests of the page to runs: left in the mailbox of a run, and answered by its journal."""

import threading
from collections import OrderedDict
from typing import Any

from etude.control.mailbox import is_going_on, post
from etude.errors import InputError, MissingError
from etude.records.events import ACCEPT, Control
from etude.records.journal import read_after
from etude.records.store import Run
from etude.text import one_line, shorten
from etude.ui.answering import StateError

_VALUES = {"key", "value", "reason", "step", "text", "release"}
_MOST_KNOWN = 1000  # requests whose answers can be asked for; the oldest is forgotten


class Requests:
    """The requests that were left through this server, each with the place where its answers are looked for.

    Nothing waits for a run: an answer is asked for again until it is there. Any thread may ask.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[int, list[Control]]] = OrderedDict()

    def post(self, run: Run, asked: dict[str, Any]) -> dict[str, str]:
        """Leave a request of `action` and values; returns its id.

        Raises: StateError if the run is not going on; InputError if nobody could read the request.
        """
        values = dict(asked)
        action = values.pop("action", None)
        if unknown := values.keys() - _VALUES:
            raise InputError(f"a request has no {shorten(min(unknown), 40)}")
        if not isinstance(action, str):
            raise InputError("the request names no action, such as stop or checkpoint")
        if not is_going_on(run):
            raise StateError(f"run {run.name} is {run.state}; only a run that is going on takes requests")
        journal = run.path / "journal.jsonl"
        place = journal.stat().st_size if journal.exists() else 0
        identity = post(run, action, channel="page", **values)
        with self._turn:
            self._known[str(run.path), identity] = place, []
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return {"request": identity}

    def answers(self, run: Run, identity: str) -> dict[str, Any]:
        """The answers so far, and whether the last of them says what was done. Raises: MissingError."""
        key = str(run.path), identity
        with self._turn:
            if key not in self._known:
                raise MissingError(f"no request {shorten(identity, 40)} was made here")
            place, heard = self._known[key]
            events, place = read_after(run.path / "journal.jsonl", place)
            heard = heard + [
                each for each in events if isinstance(each, Control) and each.request == identity
            ]
            self._known[key] = place, heard
        is_done = any(each.action != ACCEPT for each in heard)
        said = [
            {
                "action": each.action, "reason": each.reason, "step": each.step, "changes": each.changes,
                "words": one_line(f"step {each.step:,}: {each.action}: {each.reason}", 1000),
            }
            for each in heard
        ]  # fmt: skip
        return {"answers": said, "done": is_done, "state": run.state}

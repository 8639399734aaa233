"""Decisions of a sweep that no run of it tells: one line of JSON each, only ever appended to."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError

FILE = "decisions.jsonl"
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Choice:
    """Values that a search chose for its trial of a number.

    trial    name of that trial
    problem  why its recipe cannot be; "" if it can
    """

    study: str
    number: int
    trial: str
    values: Mapping[str, Any]
    problem: str = ""


@dataclass
class Decisions:
    """The decisions of a sweep folder.

    best    trial that is trained again with new seeds, chosen once
    added   names of the trials that train it again
    beyond  trials that the budget left out the last time
    found   trials that searches chose, in their order
    """

    path: Path
    best: str | None = None
    added: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)
    found: list[Choice] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "Decisions":
        """The decisions of a folder so far; a last line that a kill left half-written was not decided.

        Raises: InputError if another line is damaged.
        """
        found = cls(folder / FILE)
        if not found.path.exists():
            return found
        whole, _, _ = durable.read_bytes(found.path, most_bytes=_MOST_BYTES).rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                value = json.loads(line)
                found._take(value)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{found.path} line {number} is damaged; take the line out, or give another --folder"
                ) from None
        return found

    def choose(self, trial: str, again: Sequence[str] = ()) -> None:
        """Record the trial that is trained again, and the names under which it is."""
        self._add({"kind": "best", "trial": trial, "again": list(again)})

    def leave_out(self, beyond: Collection[str]) -> None:
        """Record the trials that the budget leaves out, if they are others than before."""
        if set(beyond) != self.beyond:
            self._add({"kind": "budget", "beyond": sorted(beyond)})

    def add(self, choice: Choice) -> None:
        """Record a trial that a search chose."""
        self._add({"kind": "search", **asdict(choice)})

    def _add(self, value: Mapping[str, Any]) -> None:
        file = durable.Appender(self.path)
        try:
            file.cut_torn_line()
            file.append(json.dumps(value).encode() + b"\n")
            file.sync()
        finally:
            file.close()
        self._take(value)

    def _take(self, value: Mapping[str, Any]) -> None:
        match value["kind"]:
            case "best":
                self.best = str(value["trial"])
                self.added.update(map(str, value["again"]))
            case "budget":
                self.beyond = set(map(str, value["beyond"]))
            case "search":
                names = (str(value["study"]), int(value["number"]), str(value["trial"]))
                self.found.append(Choice(*names, dict(value["values"]), str(value["problem"])))

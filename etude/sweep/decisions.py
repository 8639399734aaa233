"""Decisions of a sweep that no run of it tells: one line of JSON each, only ever appended to."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from etude import durable
from etude.errors import InputError
from etude.text import shorten

FILE = "decisions.jsonl"
_MOST_BYTES = 1 << 26
_MOST = 20  # sentences
_T = TypeVar("_T")


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


@dataclass(frozen=True)
class Arrival:
    """A trial that came to a rung, with its figure and rank among those that had come.

    value  its metric there; None where that was not measured
    rank   from 1, of `of` trials
    """

    trial: str
    step: int
    value: float | None
    rank: int
    of: int


@dataclass
class Decisions:
    """The decisions of a sweep folder.

    best    trial that is trained again with new seeds, chosen once
    added   names of the trials that train it again
    beyond  trials that the budget left out the last time
    found   trials that searches chose, in their order
    came    trials that came to rungs, in their order
    gone_on  trials that go on from a rung, each with its step
    """

    path: Path
    best: str | None = None
    added: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)
    found: list[Choice] = field(default_factory=list)
    came: list[Arrival] = field(default_factory=list)
    gone_on: set[tuple[str, int]] = field(default_factory=set)

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
                found._take(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                raise InputError(
                    f"{found.path} line {number} is damaged; take the line out, or give another --folder"
                ) from None
        return found

    def doubts(self, trials: Collection[str]) -> list[str]:
        """Sentences on decisions that a sweep of these trials cannot have made; they are not followed."""
        trials = {*trials, *self.added}
        came = {(each.trial, each.step) for each in self.came}
        strange = {
            "the trial that is trained again is": [self.best] if self.best else [],
            "a trial that the budget left out is": sorted(self.beyond),
            "a trial that came to a rung is": [each.trial for each in self.came],
            "a trial that goes on from a rung is": [trial for trial, _ in sorted(self.gone_on)],
            "a trial that a search chose is": [each.trial for each in self.found if not each.problem],
        }
        found = []
        for what, given in strange.items():
            if names := [name for name in dict.fromkeys(given) if name not in trials]:
                more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
                found.append(f"{what} {shorten(names[0], 64)}{more}, which is none of this sweep")
        found += [
            f"{shorten(trial, 64)} goes on from step {step:,}, where it did not come"
            for trial, step in sorted(self.gone_on - came)
        ]
        return [f"{self.path}: {text}; it, or the sweep file, was changed" for text in found[:_MOST]]

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

    def arrive(self, arrival: Arrival) -> None:
        """Record a trial that came to a rung."""
        self._add({"kind": "rung", **asdict(arrival)})

    def go_on(self, trial: str, step: int, rank: int, of: int) -> None:
        """Record a trial that goes on from a rung, with its rank among those that had come."""
        self._add({"kind": "goes on", "trial": trial, "step": step, "rank": rank, "of": of})

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
                self.best = _of(str, value["trial"])
                self.added.update(_names(value["again"]))
            case "budget":
                self.beyond = set(_names(value["beyond"]))
            case "search":
                choice = Choice(
                    study=_of(str, value["study"]), number=_of(int, value["number"]),
                    trial=_of(str, value["trial"]), values=_of(dict, value["values"]),
                    problem=_of(str, value["problem"]),
                )  # fmt: skip
                before = {each.number for each in self.found if each.study == choice.study}
                if choice.number < 0 or choice.number in before:
                    raise ValueError("a number that no search gives")
                self.found.append(choice)
            case "rung":
                figure = value["value"]
                self.came.append(
                    Arrival(
                        trial=_of(str, value["trial"]), step=_of(int, value["step"]),
                        value=None if figure is None else _of(float, figure),
                        rank=_of(int, value["rank"]), of=_of(int, value["of"]),
                    )
                )  # fmt: skip
            case "goes on":
                self.gone_on.add((_of(str, value["trial"]), _of(int, value["step"])))
            case _:
                raise ValueError("an unknown kind")


def _of(kind: type[_T], value: Any) -> _T:
    """The value, if it is of a kind. Raises: TypeError."""
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value


def _names(value: Any) -> list[str]:
    """The names of a list. Raises: TypeError if it is none."""
    return [_of(str, each) for each in _of(list, value)]

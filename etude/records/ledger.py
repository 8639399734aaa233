"""The records of a journal that count, and those that a restart made void."""

from dataclasses import dataclass
from typing import NamedTuple

from etude.records import events
from etude.records.events import Event

# Those of the start may be of an attempt, not of a step.
_OF_ATTEMPTS = events.Finding | events.Control
_OF_STEPS = (
    events.Step | events.Evaluation | events.Scores | events.Generation | events.Resource
    | events.CheckpointSaved | events.Judgement | events.Execution
)  # fmt: skip


class Entry(NamedTuple):
    """One record: the event, its Unix time and the attempt it belongs to (from 1; 0 before the first)."""

    event: Event
    time: float
    attempt: int


class Jump(NamedTuple):
    """A jump of the clock during an attempt, in seconds, negative if it went back."""

    attempt: int
    seconds: float


@dataclass(frozen=True)
class Ledger:
    """The records of a journal, without those that restarts made void.

    entries  those that count, in order
    rework   steps that were run again because a restart began before them
    damaged  numbers of lines whose checksum does not hold, or whose record is none that a run writes
    size     bytes of the lines that were read
    jumps    of the clock, which the times of the entries are without
    """

    entries: list[Entry]
    rework: list[Entry]
    damaged: list[int]
    size: int = 0
    jumps: tuple[Jump, ...] = ()

    @property
    def all(self) -> list[Entry]:
        """Every record, void ones too."""
        return [*self.entries, *self.rework]


def is_void(event: Event, from_step: int) -> bool:
    """True for a record beyond the step that a restart begins from.

    A restart from nothing also repeats the evaluation before the first step.
    """
    if isinstance(event, _OF_ATTEMPTS):
        return event.step > from_step
    return isinstance(event, _OF_STEPS) and (event.step > from_step or from_step == 0)

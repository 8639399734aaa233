"""The origin of a forked run: its parent, the step, and the records up to there."""

from dataclasses import dataclass

from etude.records.events import Attempt, CheckpointSaved
from etude.records.ledger import Entry, Ledger


@dataclass(frozen=True)
class Origin:
    """The run, by id, and the step that a run was forked from."""

    run: str
    step: int


def records_until(ledger: Ledger, step: int) -> list[Entry]:
    """The records that count after a step was saved, without those of later steps and attempts."""
    saved = [
        index
        for index, entry in enumerate(ledger.entries)
        if isinstance(entry.event, CheckpointSaved) and entry.event.step == step
    ]
    entries = ledger.entries[: saved[0] + 1] if saved else ledger.entries
    return [entry for entry in entries if _step_of(entry) <= step]


def _step_of(entry: Entry) -> int:
    event = entry.event
    step: int = event.from_step if isinstance(event, Attempt) else getattr(event, "step", 0)
    return step

"""The origin of a run: its first weights; of a fork its parent, the step, and the records up to there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from etude.records.events import Attempt, CheckpointSaved
from etude.records.ledger import Entry, Ledger
from etude.records.shape import Object


class FirstWeights(NamedTuple):
    """The weights that a run begins with: the run or folder that they come from, and their SHA-256."""

    parent: str | None
    sha256: str | None

    def are_of(self, info: Mapping[str, Any]) -> bool:
        """True for the run.json of a run that began with them, or that kept no hash and has this parent."""
        return bool(info.get("parent") == self.parent and info.get("weights", self.sha256) == self.sha256)


FRESH = FirstWeights(None, None)
ORIGIN = Object({"run": str, "step": int}, {"changes": dict[str, Any]})


@dataclass(frozen=True)
class Origin:
    """The run, by id, and the step that a run was forked from.

    changes  of keys that it has otherwise from its start, which the steps until there were not made with
    """

    run: str
    step: int
    changes: dict[str, Any] = field(default_factory=dict)


def records_until(ledger: Ledger, step: int) -> list[Entry]:
    """The records that count after a step was saved, without those of later steps and attempts.

    Checkpoints lose their heads, which are of another journal than one of these records.
    """
    saved = [
        index
        for index, entry in enumerate(ledger.entries)
        if isinstance(entry.event, CheckpointSaved) and entry.event.step == step
    ]
    entries = ledger.entries[: saved[0] + 1] if saved else ledger.entries
    return [_without_head(entry) for entry in entries if _step_of(entry) <= step]


def _without_head(entry: Entry) -> Entry:
    event = entry.event
    return entry._replace(event=replace(event, journal=None)) if isinstance(event, CheckpointSaved) else entry


def _step_of(entry: Entry) -> int:
    event = entry.event
    step: int = event.from_step if isinstance(event, Attempt) else getattr(event, "step", 0)
    return step

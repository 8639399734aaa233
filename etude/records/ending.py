"""The end of an attempt: finished, stopped, paused or failed, and why."""

from dataclasses import dataclass
from typing import Literal

from etude.records.events import Control

State = Literal["finished", "stopped", "paused", "failed"]
# By the action of the last decision.
_STATES: dict[str, State] = {
    "finish": "finished", "stop": "stopped", "release": "paused", "fail": "failed"
}  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """The end of an attempt.

    state      finished: nothing is left to do; stopped, or paused to be resumed: the same command goes on;
               failed: an error ended it
    reason     why it ended before its last step, or None
    was_asked  whether a signal asked to stop, also if that came when the last step was done
    """

    state: State
    reason: str | None = None
    was_asked: bool = False

    @classmethod
    def of(cls, control: Control) -> "Ending | None":
        """The ending that a decision recorded, or None if the run went on after it."""
        state = _STATES.get(control.action)
        return cls(state, control.reason) if state else None

    @property
    def is_resumable(self) -> bool:
        """True if the same command would go on with the run."""
        return self.state in ("stopped", "paused")

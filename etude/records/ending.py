"""How a run ended."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ending:
    """The end of an attempt.

    state      finished: nothing is left to do; stopped: the same command goes on; failed: an error ended it
    reason     why it ended before its last step, or None
    was_asked  whether a signal asked to stop, also if that came when the last step was done
    """

    state: Literal["finished", "stopped", "failed"]
    reason: str | None = None
    was_asked: bool = False

    @property
    def is_resumable(self) -> bool:
        """Whether the same command would go on with the run."""
        return self.state == "stopped"

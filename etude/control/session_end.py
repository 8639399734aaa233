"""The end of the session that a process runs in: its moment, and the way that a run knows of it."""

import os
import re
import time
from dataclasses import dataclass

import psutil

from etude.text import parse_duration, rough_duration

# Set where a whole notebook is one session, which began with the first process of its container.
_NOTEBOOKS = ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")
_STATED = "SLURM_JOB_END_TIME"  # Unix time; https://slurm.schedmd.com/sbatch.html


@dataclass(frozen=True)
class SessionEnd:
    """The moment (Unix time) at which a session ends, and the origin of that knowledge in words."""

    moment: float
    origin: str

    @property
    def left(self) -> float:
        """Seconds until then; negative where it is over."""
        return self.moment - time.time()

    def __str__(self) -> str:
        left = self.left
        when = f"ends in {rough_duration(left)}" if left > 0 else "is over"
        return f"the session {when} ({self.origin})"


def find_session_end(limit: str | None) -> SessionEnd | None:
    """The earlier of the ends that `run.session_limit` and the platform state; None where none does.

    The limit counts from the start of this process, on Kaggle and Colab from that of the session.
    """
    ends = []
    if limit is not None:
        began = psutil.Process().create_time()
        if any(name in os.environ for name in _NOTEBOOKS):
            began = min(began, psutil.Process(1).create_time())
        ends.append(SessionEnd(began + parse_duration(limit), f"run.session_limit = {limit}"))
    if re.fullmatch("[0-9]{1,12}", stated := os.environ.get(_STATED, "")):
        ends.append(SessionEnd(float(stated), _STATED))
    return min(ends, key=lambda end: end.moment, default=None)

"""The claims of etude, and what tests them."""

import os

# The models are tiny, and several test processes with all cores each would wait for one another. It must be said
# before torch is loaded, and the bits of a sum depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _leave_it_to_the_system(fd: object) -> None:
    """What a killed process has written stays; only a cut of power would lose it, and no test makes one."""


os.fsync = _leave_it_to_the_system  # 130 of a tiny run are a fifth of its CPU time, and as many waits

"""The own time of ranks in their steps, and the rank that keeps the others waiting."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from etude.records.events import Finding
from etude.text import plural

_SLOWER = 1.5  # times the median
_LEAST_SECONDS = 0.005  # a step; less is noise
_WINDOWS = 5  # from log step to log step, one after another
_ADVICE = (
    "look at its machine: another program, a throttled or another GPU, slower cores, a slow disk; "
    "every step takes as long as that rank"
)


class OwnTime:
    """A rank's own time in a step: from its beginning until it waits for others, by its device's clock."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._began = self._ended = self._moment()

    def end(self) -> None:
        """The rank begins to wait for the others."""
        self._ended = self._moment()

    def seconds(self) -> float:
        """The time; to be asked once the device has done the step."""
        if self._is_cuda:
            return float(self._began.elapsed_time(self._ended)) / 1000
        return float(self._ended - self._began)

    def _moment(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class RankTimes(NamedTuple):
    """Own seconds a step since the last log step: of the slowest rank, and the lower median of all."""

    slowest: int
    most: float
    median: float


class Stragglers:
    """Adds up a rank's own times, and judges those of all ranks, which come together at log steps.

    times  of all ranks, at the last log step; None where nobody knows them
    """

    def __init__(self) -> None:
        self.times: RankTimes | None = None
        self._own: list[OwnTime] = []
        self._is_reported, self._slow, self._count = False, -1, 0

    def add(self, own: OwnTime | None) -> None:
        """Note the time of a step."""
        if own is not None:
            self._own.append(own)

    def microseconds(self) -> int:
        """This rank's mean since the last time; 0 for unknown. The device has done the steps."""
        own, self._own = self._own, []
        return max(round(1e6 * sum(each.seconds() for each in own) / len(own)), 1) if own else 0

    def judge(self, step: int, microseconds: Sequence[int]) -> list[Finding]:
        """A finding, once in an attempt, of a rank that was the slow one some log steps in a row."""
        seconds = [each / 1e6 for each in microseconds]
        self.times = None
        if not all(seconds):
            return []
        median = sorted(seconds)[(len(seconds) - 1) // 2]
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        self.times = RankTimes(slowest, seconds[slowest], median)
        is_slow = seconds[slowest] > max(_SLOWER * median, median + _LEAST_SECONDS)
        self._count = (self._count + 1 if slowest == self._slow else 1) if is_slow else 0
        self._slow = slowest
        if self._is_reported or self._count < _WINDOWS:
            return []
        self._is_reported = True
        evidence = (
            f"rank {slowest} takes {seconds[slowest]:.3g} s of its own in a step, the median of "
            f"{plural(len(seconds), 'rank')} is {median:.3g} s"
        )
        what = f"rank {slowest} keeps the others waiting"
        return [Finding(step, what, evidence, _ADVICE, window=[step, step], kind="slow_rank")]

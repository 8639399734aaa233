"""Time and memory of a run: slower steps, waits for data, steps that stall, memory that grows."""

import math
import statistics
from collections import deque
from itertools import pairwise
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import Blocks, Cusum, Window, at_least, mann_kendall, theil_sen

_LONG_ENOUGH, _LONG_WAIT = 60.0, 2.0  # seconds
_RISES = 8  # of 9 between 10 points, of which chance makes one in 3,600 windows
_BLOCKS, _FEW_BLOCKS = 25, 12


class Slowdown:
    """A lasting fall of the tokens, or of the steps where tokens are unknown, in a second.

    Rule: the logs of the rates of points 4 to 33 give the usual rate and its deviation, at least 3 %; then a
    CUSUM (slack 0.75, as the usual rate has an error, limit 8) of the rates since, each cut at 3 deviations,
    says lower, and the median of the last 10 is lower by a tenth and by 1.5 deviations; where the seconds of
    steps are known, for a minute of them, since a neighbour on the machine is no fault of the run. A rate
    that rose at nearly all of these points waits: a mean since the start recovers so from an evaluation. It
    is a warning from a quarter on, else a remark.
    Source: Siegmund's formula: with a slack of 0.5 chance exceeds the limit once in 19,000 points.
    Delay: 10 to 20 points. False alarms: none on 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "slowdown"

    def __init__(self, facts: Facts) -> None:
        self._first = Window(30)
        self._recent: deque[float] = deque(maxlen=10)
        self._cusum = Cusum(slack=0.75)
        self._skip = 3  # first steps compile and fill caches
        self._usual = self._spread = math.nan
        self._since = self._slow_points = 0
        self._clock = self._slow_from = 0.0  # seconds of steps
        self._has_tokens = self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        self._clock += point.seconds or 0.0
        rate = self._rate(point)
        if rate is None or not 0 < rate < math.inf:
            return None
        if self._skip:
            self._skip -= 1
            return None
        log = math.log(rate)
        if not self._first.is_full:
            self._first.add(log)
            if self._first.is_full:
                self._usual, self._spread = self._first.median(), at_least(self._first.deviation(), 0.03)
            return None
        self._recent.append(log)
        score = (log - self._usual) / self._spread
        change = self._cusum.add(max(min(score, 3.0), -3.0))
        self._slow_points += 1
        if not self._cusum.low:
            self._since, self._slow_points, self._slow_from = point.step, 0, self._clock
        if change >= 0 and not self._is_reported:
            return None
        fall = self._usual - statistics.median(self._recent)
        if change >= 0 or fall < max(0.105, 1.5 * self._spread) or self._slow_points < 10:
            self._is_reported = self._is_reported and fall > 0.05
            return None
        is_short = bool(self._clock) and self._clock - self._slow_from < _LONG_ENOUGH
        rises = sum(later > before for before, later in pairwise(self._recent))
        is_coming_back = rises >= _RISES
        if self._is_reported or is_short or is_coming_back:
            return None
        return self._finding(point.step, 1 - math.exp(-fall))

    def untold(self) -> str | None:
        return None if self._first.is_full else "no speeds of steps, or of fewer than 33"

    def _rate(self, point: Point) -> float | None:
        """Tokens a second if there are any in this log, else steps."""
        if point.tokens_per_second is not None:
            if not self._has_tokens:
                self._has_tokens, self._skip = True, 3
                self._first.clear()
            return point.tokens_per_second
        if self._has_tokens or not point.seconds or point.loss is None:
            return None
        return 1 / point.seconds

    def _finding(self, step: int, drop: float) -> Finding:
        self._is_reported = True
        unit = "tokens/s" if self._has_tokens else "steps/s"
        usual, now = math.exp(self._usual), math.exp(statistics.median(self._recent))
        return Finding(
            step,
            "training has become slower",
            f"{now:,.4g} {unit} over the last 10 points where {usual:,.4g} were usual, {drop:.0%} "
            f"less, since step "
            f"{self._since:,}",
            "see who else uses the machine, its temperature and clock, and whether longer samples came up",
            severity="warning" if drop >= 0.25 else "info",
            window=[self._since, step],
            causes=[
                "another process on the machine",
                "a GPU or CPU that throttles",
                "longer samples",
                "slow storage",
            ],
            not_tested=["clock and temperature of the device", "length of the samples"],
            kind=self.kind,
            confidence=0.7,
        )


class Starvation:
    """Steps that wait for their data.

    Rule: of the time of the last 50 steps, over 20 % were waits, and since that is so over 2 seconds, so that
    waits which cost no time worth a word are none. The first 10 steps are left out.
    Source: our choices. Delay: 50 steps, or until 2 seconds were lost. False alarms: none on 2,000 made
    healthy curves.
    """

    kind: ClassVar[str] = "data_starvation"

    def __init__(self, facts: Facts) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=50)
        self._seconds = self._waits = self._lost = 0.0
        self._seen, self._since, self._is_reported = 0, 0, False

    def observe(self, point: Point) -> Finding | None:
        wait, seconds = point.wait_seconds, point.seconds
        if wait is None or not seconds or not (0 <= wait < math.inf and seconds < math.inf):
            return None
        self._seen += 1
        if self._seen <= 10:
            return None
        if len(self._steps) == 50:
            old_seconds, old_wait = self._steps[0]
            self._seconds -= old_seconds
            self._waits -= old_wait
        self._steps.append((seconds, wait))
        self._seconds += seconds
        self._waits += wait
        if len(self._steps) < 50 or self._waits < 0.2 * self._seconds:
            self._is_reported = self._is_reported and self._waits > 0.1 * self._seconds
            self._lost = 0.0
            return None
        if not self._lost:
            self._lost, self._since = self._waits, max(point.step - 50, 1)
        else:
            self._lost += wait
        if self._is_reported or self._lost < _LONG_WAIT:
            return None
        self._is_reported = True
        share = self._waits / self._seconds if self._seconds else 1.0
        return Finding(
            point.step,
            "steps wait for their data",
            f"{share:.0%} of the time of the last 50 steps, {self._waits:.3g} of {self._seconds:.3g} s, "
            f"went by waiting; {self._lost:.3g} s since step {self._since:,}",
            "keep the prepared data on a local disk, and see what else reads from it",
            window=[self._since, point.step],
            causes=[
                "data on a slow or remote disk",
                "too few processors for reading",
                "another process that reads",
            ],
            not_tested=["speed of the disk"],
            kind=self.kind,
            confidence=0.8,
        )

    def untold(self) -> str | None:
        return None if self._steps else "no waiting times"


class MemoryCreep:
    """Memory that grows from step to step, with the step at which it will be exhausted.

    Rule: after the first 50 steps, over blocks of which 25 span a third of the steps, 100 to 500 of them: the
    Mann-Kendall score of the last 25 is above 3.9 (chance: one in 20,000), each fifth of them is above the
    one before, the last by half of the mean rise, no three fifths next to each other have four fifths of the
    growth, and that is over 2 %. A single rise, as by a first evaluation, is no creep. So that short runs are
    told, the last 12 blocks are enough if no three neighbours have three tenths of the growth, the last fifth
    rises by three quarters of the mean, and the growth is over 5 %. It is over a thousandth of the memory of
    the machine (of 16 GiB where that is unknown). A warning if the memory ends before the steps do, or has an
    unknown end, or grew by a tenth within the blocks; else a remark.
    Source: Mann (1945); Kendall (1970). Delay: 12 blocks. False alarms: none on 2,000 made healthy curves
    and on 240 made curves of memory that rises in other ways.
    """

    kind: ClassVar[str] = "memory_creep"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._least = (facts.memory_limit_bytes or 2**34) / 1000
        self._blocks: Blocks | None = None
        self._first_step: int | None = None
        self._last_step = 0
        self._told = ""  # the severity of what was reported

    def observe(self, point: Point) -> Finding | None:
        used = point.memory_bytes
        if used is None or used <= 0:
            return None
        step = point.step
        self._first_step = step if self._first_step is None else self._first_step
        if step <= self._first_step + 50:
            self._last_step = step
            return None
        if self._blocks is None:
            span = min(max((self._facts.steps or 1500) / 3, 100), 500)
            self._blocks = Blocks(max(1, round(span / _BLOCKS / max(step - self._last_step, 1))), _BLOCKS)
        if not self._blocks.add(step, used) or self._told == "warning":
            return None
        means, places = list(self._blocks.means), list(self._blocks.places)
        if len(means) == _BLOCKS and self._creeps(means, 0.02):
            return self._finding(step, places, means)
        if len(means) >= _FEW_BLOCKS and self._creeps(means[-_FEW_BLOCKS:], 0.05):
            return self._finding(step, places[-_FEW_BLOCKS:], means[-_FEW_BLOCKS:])
        return None

    def untold(self) -> str | None:
        if self._first_step is None:
            return "no memory in use"
        enough = self._blocks is not None and len(self._blocks.means) >= _FEW_BLOCKS
        return None if enough else "memory in use at too few points"

    def _creeps(self, means: list[float], share: float) -> bool:
        growth = means[-1] - means[0]
        if growth < max(share * means[0], self._least):
            return False
        cuts = [round(at * len(means) / 5) for at in range(6)]
        fifths = [sum(means[low:high]) / (high - low) for low, high in pairwise(cuts)]
        rises = [later - before for before, later in pairwise(fifths)]
        is_jump = max(a + b for a, b in pairwise(rises)) > 0.8 * sum(rises)
        if len(means) < _BLOCKS:
            is_jump |= max(later - before for before, later in zip(means, means[2:])) > 0.3 * growth
        goes_on = min(rises) > 0 and rises[-1] > (0.5 if len(means) == _BLOCKS else 0.75) * sum(rises) / 4
        return goes_on and not is_jump and mann_kendall(means) > 3.9

    def _finding(self, step: int, places: list[float], means: list[float]) -> Finding | None:
        slope, low, high = theil_sen(places, means)
        first, limit, steps = round(places[0]), self._facts.memory_limit_bytes, self._facts.steps
        evidence = (
            f"{means[0] / 2**30:.2f} GiB at step {first:,}, {means[-1] / 2**30:.2f} GiB at step {step:,}, "
            f"{slope / 2**20:.2g} MiB a step"
        )
        end = None
        if limit and low > 0:
            end = step + round((limit - means[-1]) / slope)
            soonest, latest = (step + round((limit - means[-1]) / each) for each in (high, low))
            evidence += f"; {limit / 2**30:.1f} GiB will be full at step {end:,} ({soonest:,} to {latest:,})"
        is_in_time = end is not None and steps is not None and end > steps
        is_slow = means[-1] < 1.1 * means[0]
        severity = "info" if is_in_time and is_slow else "warning"
        if severity == self._told:
            return None
        self._told = severity
        return Finding(
            step,
            "memory grows from step to step",
            evidence + (f", after the last, {steps:,}" if is_in_time else ""),
            "keep no tensors of earlier steps: log numbers; save a checkpoint before the memory is full",
            severity=severity,
            window=[first, step],
            causes=[
                "tensors that are kept with their graph",
                "caches without a limit",
                "samples that grow longer",
            ],
            changes={},
            not_tested=["which objects grow"],
            kind=self.kind,
            confidence=0.8,
        )


class Stall:
    """A step that took far longer than those before it, or that does not end.

    Rule: over 60 seconds and over 10 times the median of the last 50 steps. `overdue` tells it while the step
    still hangs; `observe` after it ended.
    Source: our choice; the rule StalledTrainingRule of Amazon SageMaker Debugger waits 1,800 s.
    Delay: 10 steps, one minute at least. False alarms: none on 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "stall"

    def __init__(self, facts: Facts) -> None:
        self._seconds: deque[float] = deque(maxlen=50)
        self._step = 0

    def observe(self, point: Point) -> Finding | None:
        seconds, self._step = point.seconds, point.step
        if seconds is None or not 0 <= seconds < math.inf:
            return None
        found = (
            self._finding(point.step, seconds, f"step {point.step:,} took")
            if self._is_long(seconds)
            else None
        )
        self._seconds.append(seconds)
        return found

    def overdue(self, seconds: float) -> Finding | None:
        """The finding of a run that was silent for so many seconds; it may be evaluating or saving."""
        if not self._is_long(seconds):
            return None
        return self._finding(self._step, seconds, f"nothing after step {self._step:,} for")

    def untold(self) -> str | None:
        return None if len(self._seconds) else "no times of steps"

    def _is_long(self, seconds: float) -> bool:
        is_late = seconds > _LONG_ENOUGH and len(self._seconds) >= 5
        return is_late and seconds > 10 * statistics.median(self._seconds)

    def _finding(self, step: int, seconds: float, beginning: str) -> Finding:
        return Finding(
            step,
            "a step hangs or took very long",
            f"{beginning} {seconds:,.0f} s, where {statistics.median(self._seconds):.3g} s are usual",
            "see whether a rank, the disk or the network waits; py-spy dump --pid shows where it stands",
            window=[step, step],
            causes=[
                "a rank that waits for another",
                "a disk or network that does not answer",
                "a suspended machine",
            ],
            not_tested=["where the process stands"],
            kind=self.kind,
            confidence=0.6,
        )

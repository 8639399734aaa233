"""Training losses that rise for good or stop falling."""

import math
import statistics
from collections import deque
from typing import Any, ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point, clipping
from etude.watch.rates import Rates
from etude.watch.stream import Blocks, Ema, Window, deviation, theil_sen

_MEDIAN_ERROR = 1.2533  # standard error of a median beside that of a mean, of a normal distribution
_CHANGE = 1.128  # mean distance of two neighbours, in standard deviations


class Divergence:
    """A training loss that rose and stays up.

    Rule: the level is the median of the last 5 points, from 100 points on of the last 25. By over six of its
    standard errors it is (a) above the best level by a fifth with half of the fall lost, or after 15 % of the
    steps by 0.5 nats with four fifths of it, for 5 points, later 10; (b) above 1.2 times the first loss, by
    4.5 deviations of points, for 10 points, or early above 1.5 times; (c) above ln(classes) + 0.2 for 10
    points; or (d) above 1.1 times the best with a fifth of the fall lost, rising over the last 50 points and
    over the 50 before. Deviations come from neighbours, so that a trend does not count as noise, and are at
    least those of means over so many targets, where their number is known.
    Source: label rule of the real curves for (a) and (b); the rest as in the benchmark.
    Delay: 3 to 8 points early, 23 from 100 points on, 100 of (d). False alarms: none on 27 real and 1 of
    2,000 made healthy curves.
    """

    kind: ClassVar[str] = "divergence"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._chance = math.log(facts.classes) if facts.classes and facts.classes > 1 else math.inf
        self._few: deque[float] = deque(maxlen=5)
        self._many = Window(25)
        self._levels: deque[float] = deque(maxlen=101)
        self._begins: deque[int] = deque(maxlen=101)  # oldest steps of these levels
        self._change, self._change_now = Ema(100), Ema(15)  # between neighbours
        self._rates = Rates()
        self._steps: deque[int] = deque(maxlen=25)
        self._points = self._held = self._onset = 0
        self._first = self._start = self._best = math.nan
        self._best_steady = math.nan
        self._best_step = self._best_steady_step = 0
        self._peak_rate = facts.peak_learning_rate or 0.0
        self._epoch, self._epoch_before = 0, -math.inf  # full epochs, and the level where the last one ended
        self._is_reported = self._is_negative = False
        self._targets = math.inf  # of a point

    def observe(self, point: Point) -> Finding | None:
        loss = point.loss
        if loss is None or point.skipped or not math.isfinite(loss):
            return None
        self._peak_rate = max(self._peak_rate, point.learning_rate or 0.0)
        self._rates.add(point)
        self._targets = point.targets or math.inf
        self._follow_epochs(point)
        self._take(loss)
        if self._points < 5:
            return None
        level, error = self._level(point.step), self._error()
        self._steps.append(point.step)
        self._begins.append(self._steps[0 if self._points >= 100 else max(len(self._steps) - 5, 0)])
        if level <= self._best + 3 * error:  # the oldest point of a level that is still good
            self._onset = self._begins[-1]
        found = self._reason(level, error) if self._first > 0.05 and not self._is_negative else None
        if not found:
            self._held = 0
            self._is_reported = self._is_reported and level > self._best + 3 * error
            return None
        self._held += 1
        reason, hold = found
        if self._is_reported or self._held < hold or self._is_coming_down(level):
            return None
        self._is_reported = True
        self._onset = min(self._onset, self._last_nearer_to_best(level))
        return self._finding(point.step, level, reason)

    def _last_nearer_to_best(self, level: float) -> int:
        """The onset by half of the rise: a jump at the start makes the error of levels large for long."""
        middle = (self._best + level) / 2
        known = zip(reversed(self._begins), reversed(self._levels))
        is_from_start = self._points <= len(self._levels) + 4
        return next((begin for begin, each in known if each <= middle), 0 if is_from_start else self._onset)

    def untold(self) -> str | None:
        if self._is_negative:
            return "losses below zero are no likelihood, so that their level says nothing"
        return f"{self._points} points of training, 5 are needed for a level" if self._points < 5 else None

    def _follow_epochs(self, point: Point) -> None:
        """Keep the level at the end of an epoch: the loss steps down there, and may rise within the next."""
        epoch = point.epoch
        if epoch is None and self._facts.steps_per_epoch:
            epoch = point.step / self._facts.steps_per_epoch
        if epoch is not None and (full := math.ceil(epoch - 1e-6) - 1) > self._epoch:
            self._epoch, self._epoch_before = full, self._levels[-1] if self._levels else -math.inf

    def _is_coming_down(self, level: float) -> bool:
        """True for a jump that is on its way back, as most are."""
        return self._points >= 100 and level - statistics.median(self._few) > 0.2 * (level - self._best)

    def _take(self, loss: float) -> None:
        self._points += 1
        if self._points == 1:
            self._first = self._best = loss
            self._last = loss
        change = abs(loss - self._last)
        usual = self._change.value
        change = min(change, 5 * usual) if self._points > 10 and usual > 0 else change
        self._change.add(change)
        self._change_now.add(change)
        self._last = loss
        self._is_negative = self._is_negative or loss < 0
        self._few.append(loss)
        self._many.add(loss)

    def _level(self, step: int) -> float:
        """The level now; from the 100th point on it and the best so far are of more points."""
        if self._points < 100:
            level = statistics.median(self._few)
            if not level >= self._best:
                self._best, self._best_step = level, step
            if self._points == 5:
                self._start = level
        if self._points >= 25:
            steady = self._many.median()
            if not steady >= self._best_steady:
                self._best_steady, self._best_steady_step = steady, step
            if self._points >= 100:
                level, self._best, self._best_step = steady, self._best_steady, self._best_steady_step
        self._levels.append(level)
        return level

    def _error(self) -> float:
        """Standard error of the level, by the distances of neighbours or by the number of targets."""
        width = 25 if self._points >= 100 else 5
        change = max(self._change.value, self._change_now.value)  # batches may grow noisier as a loss falls
        # Rare errors of a small batch make most of its loss, and a quiet stretch shows none of them. Losses
        # of targets scatter by about as much as their mean, as those of an exponential distribution do.
        rare = self._levels[-1] / math.sqrt(self._targets) if self._levels else 0.0
        return _MEDIAN_ERROR * max(change / _CHANGE, rare) / math.sqrt(width)

    def _reason(self, level: float, error: float) -> tuple[str, int] | None:
        """The part of the rule that holds now, and the points that it has to hold for."""
        best, first, is_long = self._best, self._first, self._points >= 100
        lost, fall = level - best, max(first, self._start) - best
        if self._points > 50 and level > self._chance + max(0.2, 6 * error):
            return f"where a model that knows nothing has {self._chance:.4g}", 10
        if lost < 6 * error:
            return None
        if level > 1.2 * first and level - first > 4.5 * self._scatter():
            is_early = level > 1.5 * first and not is_long
            return f"where the first was {first:.4g}", 1 if is_early else 10
        is_worse = lost > 0.2 * best or (lost > max(0.5, 0.8 * fall) and self._is_past_warm_up())
        if is_worse and lost > 0.5 * fall > 0:
            lost_share = f"{lost / fall:.0%} of the fall is lost"
            before = f"where the best was {best:.4g} at step {self._best_step:,}"
            return f"{before}; {lost_share}", 10 if is_long else 5
        if level < self._epoch_before:
            return None
        if level > 1.1 * best and lost > max(0.2 * fall, 8 * error) and self._is_rising(error):
            return f"where the best was {best:.4g} at step {self._best_step:,}; it rises still", 1
        return None

    def _is_past_warm_up(self) -> bool:
        return bool(self._facts.steps and self._steps[-1] > 0.15 * self._facts.steps)

    def _scatter(self) -> float:
        """Standard deviation of single points, as the first is one of them."""
        if self._points >= 100:
            return self._many.deviation()
        return deviation(self._few, statistics.median(self._few))

    def _is_rising(self, error: float) -> bool:
        """True if each quarter of the last 100 points is above the one before, by a part of the rise."""
        if len(self._levels) < 101:
            return False
        rises = [self._levels[at + 25] - self._levels[at] for at in range(0, 100, 25)]
        return min(rises) > max(1.5 * error, 0.1 * sum(rises))

    def _finding(self, step: int, level: float, reason: str) -> Finding:
        rate, width = self._peak_rate, 25 if self._points >= 100 else 5
        lower = {"optim.learning_rate": float(f"{rate * 0.3:.2g}")} if rate > 0 else {}
        onset = self._onset
        back = f"go back to a checkpoint before step {onset:,}" if onset > 1 else "start again"
        return Finding(
            step,
            "the training loss rose and stays up",
            f"loss {level:.4g} at step {step:,} (median of the last {width} points), {reason}",
            f"{back} with a third of optim.learning_rate; a longer schedule.warmup_steps if it rose during "
            f"warm-up{clipping(self._facts)[0]}",
            severity="error",
            window=[max(self._onset, 1), step],
            causes=[
                *self._rates.causes(),
                "a learning rate that is too high",
                "a warm-up that is too short",
                "other data from here on",
            ],
            changes={**lower, **clipping(self._facts)[1]},
            not_tested=["whether the data changed at this step"],
            kind=self.kind,
            confidence=0.8,
        )


class Plateau:
    """A training loss that no longer moves while the learning rate is still high.

    Rule: over 24 blocks that span a tenth of the steps (120 points where their number is unknown), the
    interval of the Theil-Sen trend at two standard errors stays within 1 % of the level, and the learning
    rate is above a tenth of its peak throughout. It is a warning if the level is that of a model that knows
    nothing, ln(classes)
    within 3 %, without a trend; else a remark, for a run that has learnt what it can looks the same.
    Delay: a tenth of the steps. False alarms: no warning on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "plateau"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._blocks: Blocks | None = None
        self._peak_rate = facts.peak_learning_rate or 0.0
        self._last_step: int | None = None
        self._wait, self._is_reported = 0, False
        self._first, self._level = math.nan, Ema(10)

    def observe(self, point: Point) -> Finding | None:
        loss, rate = point.loss, point.learning_rate
        if loss is None or point.skipped or not math.isfinite(loss):
            return None
        if self._level.count < 2:
            self._first = loss if not self._level.count else (self._first + loss) / 2
        self._level.add(loss)
        if rate is not None:
            self._peak_rate = max(self._peak_rate, rate)
            if rate < 0.1 * self._peak_rate and self._blocks:
                self._blocks.clear()
                return None
        if self._blocks is None and not self._begin(point.step):
            return None
        assert self._blocks is not None
        if not self._blocks.add(point.step, loss) or not self._blocks.is_full:
            return None
        self._wait -= 1
        if self._wait > 0:
            return None
        self._wait = 6
        return self._judge(point.step)

    def untold(self) -> str | None:
        fall = 1 - self._level.value / self._first if self._first else 0.0
        if fall < 0.1:
            so_far = f"fell by {fall:.0%}" if fall >= 0.005 else "did not fall"
            return f"the loss {so_far} so far; the task says whether more was to be expected"
        return None

    def _begin(self, step: int) -> bool:
        """Choose the length of blocks, once two points tell how far they are apart."""
        if self._last_step is None:
            self._last_step = step
            return False
        points = 0.1 * (self._facts.steps or 0) / max(step - self._last_step, 1)
        self._blocks = Blocks(max(5, math.ceil(points / 24)), 24)
        return True

    def _judge(self, step: int) -> Finding | None:
        assert self._blocks is not None
        places, means = self._blocks.places, self._blocks.means
        level, span = sum(means) / len(means), places[-1] - places[0]
        halves = abs(sum(list(means)[:12]) - sum(list(means)[12:])) / 12
        if level < 0.05 or halves > 0.01 * level:
            self._is_reported = self._is_reported and halves < 0.03 * level
            return None
        if self._is_reported or not span:
            return None
        slope, low, high = theil_sen(places, means)
        if max(abs(low), abs(high)) * span > 0.01 * level:
            return None
        self._is_reported = True
        classes = self._facts.classes
        is_chance = bool(classes and classes > 1 and abs(level / math.log(classes) - 1) < 0.03)
        is_chance = is_chance and low <= 0 <= high
        return self._finding(
            step, level, [slope * span, low * span, high * span], classes if is_chance else None
        )

    def _finding(self, step: int, level: float, trend: list[float], classes: int | None) -> Finding:
        assert self._blocks is not None
        first = round(self._blocks.places[0])
        details: dict[str, Any] = {
            "severity": "info",
            "causes": ["what can be learnt at this rate is learnt"],
        }
        if classes:
            causes = [
                "weights that do not train",
                "labels that do not belong to their rows",
                "a rate far off",
            ]
            details = {"severity": "warning", "causes": causes}
        return Finding(
            step,
            "the model has learnt nothing so far" if classes else "the training loss has stopped falling",
            f"loss {level:.4g} from step {first:,} to {step:,}, over which it changed by {trend[0]:+.2g} "
            f"(between {trend[1]:+.2g} and {trend[2]:+.2g})"
            + (f"; a guess among {classes:,} has {math.log(classes):.4g}" if classes else ""),
            "see that the labels fit their rows and that the weights move; else try a higher "
            "optim.learning_rate"
            if classes
            else "lower the learning rate now, or stop: more steps at this rate change little",
            window=[first, step],
            not_tested=["whether a lower or a higher learning rate would go further"],
            kind=self.kind,
            confidence=0.5,
            **details,
        )

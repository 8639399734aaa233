"""Validation losses that rise, by overfitting or otherwise."""

import math
import statistics
from collections import deque
from typing import ClassVar, NamedTuple

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.stream import noise

_LEAST_RISE = 0.02  # nats: errors of a loss near zero are smaller than what matters


class Measured(NamedTuple):
    """An evaluation, and the mean training loss since the one before."""

    step: int
    loss: float
    error: float | None
    train: float
    epoch: float | None


class Evaluations:
    """The evaluations of a run: the best by loss, and the last 12."""

    def __init__(self) -> None:
        self.best: Measured | None = None
        self.recent: deque[Measured] = deque(maxlen=12)
        self.count = self.since_best = 0
        self._around: list[float] = []  # losses of the best and its neighbours
        self._sum, self._points, self._mean = 0.0, 0, math.nan

    def add(self, point: Point) -> Measured | None:
        """Take in a point; returns the evaluation that it holds."""
        loss = point.loss
        if loss is not None and not point.skipped and math.isfinite(loss):
            self._sum += loss
            self._points += 1
        if point.eval_loss is None or not math.isfinite(point.eval_loss):
            return None
        if self._points:
            self._mean, self._sum, self._points = self._sum / self._points, 0.0, 0
        found = Measured(point.step, point.eval_loss, point.eval_error, self._mean, point.epoch)
        self.recent.append(found)
        self.count += 1
        self.since_best += 1
        if self.best is None or found.loss < self.best.loss:
            self.best, self.since_best = found, 0
            self._around = [each.loss for each in list(self.recent)[-2:]]
        elif self.since_best == 1:
            self._around.append(found.loss)
        return found

    def has_risen(self, share: float, nats: float = math.inf, least: float = 0.01) -> bool:
        """True if the last two evaluations, both after the best, are worse than it beyond doubt.

        Where standard errors are known, each by two of them, by `least` of the best and by 0.02. Else their
        mean is above the median of the best and its neighbours, as the best alone is low for being the best
        of many, by `share` of it or by `nats`, and by four deviations of the evaluations' noise, and the last
        is no better than the one before. With fewer than six evaluations, which tell no noise, it takes twice
        the share, and nats do not count. Where training rows are known by heart, with a loss below a fifth of
        that of validation, noise is no excuse.
        """
        if self.best is None or self.since_best < 2 or self.count < 3:
            return False
        (*_, last, now), best = self.recent, self.best
        if last.error is not None and now.error is not None and best.error is not None:
            bound = max(least * abs(best.loss), _LEAST_RISE)
            return all(
                each.loss - best.loss > max(2 * math.hypot(each.error or 0.0, best.error), bound)
                for each in (last, now)
            )
        bound, scatter = min(share * abs(best.loss), nats), 0.0
        if not now.train < 0.2 * now.loss:
            if len(self.recent) < 6:
                bound = 2 * share * abs(best.loss)
            else:
                scatter = noise([each.loss for each in self.recent])
            if now.loss < last.loss:  # on its way back, as after a rate that begins anew
                return False
        rise = (last.loss + now.loss) / 2 - statistics.median(self._around)
        return rise > max(bound, 4 * scatter) and min(last.loss, now.loss) > best.loss + bound / 2


class Overfitting:
    """A validation loss that rises while the training loss falls on, over rows that were seen before.

    Rule: after the first epoch (or where epochs are unknown), with at least 3 evaluations, the last two, both
    after the best, are worse than it. Where errors are known: each by two of them, 1 % and 0.02. Else:
    their mean by a tenth or 0.1 nats and by four deviations of the evaluations' noise, the last no better
    than the one before (of fewer than six evaluations by a fifth; by a tenth whatever the noise if training
    has a fifth of the validation loss). The mean training loss since the evaluation before is 2 % below that
    of the best, so that the gap grows. Never from training loss alone.
    Source: label rule of the real curves (a tenth); Prechelt, Early stopping - but when? (1998).
    Delay: 2 evaluations after the rise began. False alarms: none on 27 real and 1 of 2,000 made healthy
    curves.
    """

    kind: ClassVar[str] = "overfitting"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evaluations = Evaluations()
        self._epoch: float | None = None
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        if point.epoch is not None:
            self._epoch = point.epoch
        elif self._facts.steps_per_epoch:
            self._epoch = point.step / self._facts.steps_per_epoch
        now, best = self._evaluations.add(point), self._evaluations.best
        if now is None or best is None:
            return None
        self._is_reported = self._is_reported and self._evaluations.since_best > 0
        if self._is_reported or (self._epoch is not None and self._epoch <= 1):
            return None
        if not self._evaluations.has_risen(0.1, nats=0.1) or not now.train < 0.98 * best.train:
            return None
        self._is_reported = True
        return self._finding(now, best)

    def untold(self) -> str | None:
        count, best = self._evaluations.count, self._evaluations.best
        if self._epoch is not None and self._epoch <= 1:
            return None
        if count < 3:
            return f"{count} evaluations, 3 are needed to tell overfitting from learning"
        last = self._evaluations.recent[-1]
        if best and not self._is_reported and last.error is None and last.loss > 1.05 * best.loss > 0:
            rise = last.loss / best.loss - 1
            return f"validation loss is {rise:.0%} above its best, which says nothing without standard errors"
        return None

    def _finding(self, now: Measured, best: Measured) -> Finding:
        errors = f" (standard error {now.error:.2g})" if now.error is not None else ""
        causes = ["more passes over the rows than they bear", "too few rows for the weights that train"]
        not_tested = ["rows of training that stand in validation", "metrics other than the loss"]
        if self._epoch is None:
            not_tested.insert(0, "whether rows repeat, as the log has no epochs")
        return Finding(
            now.step,
            "validation loss rises while training loss falls",
            f"validation loss {best.loss:.4g} at step {best.step:,}, {now.loss:.4g} at step "
            f"{now.step:,}{errors}; "
            f"training loss {best.train:.4g} then, {now.train:.4g} now: the gap went from "
            f"{best.loss - best.train:+.3g} to {now.loss - now.train:+.3g}",
            f"take the checkpoint of step {best.step:,}; then fewer train.epochs, or dropout and "
            f"weight decay; more "
            f"rows help most. A higher adapter rank does not",
            window=[best.step, now.step],
            causes=causes,
            changes=self._changes(best),
            not_tested=not_tested,
            kind=self.kind,
            confidence=0.9 if now.error is not None else 0.8,
        )

    def _changes(self, best: Measured) -> dict[str, int]:
        epochs = best.epoch
        if epochs is None and self._facts.steps_per_epoch:
            epochs = best.step / self._facts.steps_per_epoch
        return {"train.epochs": max(math.ceil(epochs - 1e-6), 1)} if epochs else {"evaluate.patience": 2}


class ValidationRise:
    """A validation loss that rises although no row repeats, or while the training loss does not fall.

    Rule: as for overfitting with a quarter in place of a tenth and 10 % in place of 1 %, in the first epoch
    or with a mean training loss of at least 0.98 of that of the best.
    Delay: 2 evaluations. False alarms: none on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "validation_rise"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evaluations = Evaluations()
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        now, best = self._evaluations.add(point), self._evaluations.best
        if now is None or best is None:
            return None
        self._is_reported = self._is_reported and self._evaluations.since_best > 0
        if self._is_reported or not self._evaluations.has_risen(0.25, least=0.1):
            return None
        epoch = now.epoch
        if epoch is None and self._facts.steps_per_epoch:
            epoch = now.step / self._facts.steps_per_epoch
        is_first = epoch is not None and epoch <= 1
        if not is_first and not now.train >= 0.98 * best.train:
            return None
        self._is_reported = True
        rate = self._facts.peak_learning_rate
        train = f"; training loss {best.train:.4g} then, {now.train:.4g} now" if best.step else ""
        return Finding(
            now.step,
            "validation loss rises, and not by overfitting",
            f"validation loss {best.loss:.4g} at step {best.step:,}, {now.loss:.4g} at step "
            f"{now.step:,}{train}" + (", in the first epoch" if is_first else ""),
            "try a lower optim.learning_rate, and see that validation rows are made like those of training",
            window=[best.step, now.step],
            causes=[
                "a learning rate that is too high",
                "validation rows of another kind than those of training",
            ],
            changes={"optim.learning_rate": float(f"{rate * 0.3:.2g}")} if rate else {},
            not_tested=["validation loss by source"],
            kind=self.kind,
            confidence=0.5,
        )

    def untold(self) -> str | None:
        return None

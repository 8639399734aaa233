"""Evaluations that mislead: by the metric, by their noise, by rows that were not unseen."""

import math
import statistics
from collections import deque
from itertools import pairwise
from typing import ClassVar

from etude.records.events import Finding
from etude.watch.detectors.unseen import Evaluations
from etude.watch.point import Facts, Point
from etude.watch.stream import noise, theil_sen

_HIGHER_IS_BETTER = ("accuracy", "f1", "bleu", "chrf", "rouge", "exact", "recall", "precision", "auc", "mcc")
_BEYOND_CHANCE = math.log(1e6)
_PATIENT = 0.2  # of the steps
_LOWER_IS_BETTER = ("wer", "cer", "perplexity", "ter")


class MetricSplit:
    """A metric that gets better while the validation loss gets worse: they name different checkpoints.

    Rule: the validation loss has risen as for overfitting, and the metric is better at both of the last two
    evaluations than at the best loss, by 1 % of its value at least. A remark: which of them counts is
    declared by the recipe.
    Delay: 2 evaluations. False alarms: a remark only.
    """

    kind: ClassVar[str] = "metric_split"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evaluations = Evaluations()
        self._name = ""
        self._metrics: deque[float] = deque(maxlen=2)
        self._at_best = math.nan
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        now, best = self._evaluations.add(point), self._evaluations.best
        if now is None or best is None or not point.metrics:
            return None
        self._name = self._name or self._choose(point)
        value = point.metrics.get(self._name)
        if value is None or not math.isfinite(value):
            return None
        self._metrics.append(value)
        if self._evaluations.since_best == 0:
            self._at_best, self._is_reported = value, False
            return None
        least = 0.01 * abs(self._at_best)
        is_better = all(self._sign() * (each - self._at_best) > least for each in self._metrics)
        if self._is_reported or not is_better or not self._evaluations.has_risen(0.05, nats=0.05):
            return None
        self._is_reported = True
        return Finding(
            now.step,
            "the metric and the validation loss name different checkpoints",
            f"{self._name} {self._at_best:.4g} at step {best.step:,}, where validation loss is best, "
            f"{value:.4g} at step "
            f"{now.step:,}; validation loss {best.loss:.4g} and {now.loss:.4g}",
            "choose the checkpoint by the metric that was declared before training, evaluate.metric, "
            "and say so",
            severity="info",
            window=[best.step, now.step],
            causes=["a model that grows surer of its right answers and of its wrong ones"],
            not_tested=["whether the metric's gain is above its noise"],
            kind=self.kind,
            confidence=0.6,
        )

    def untold(self) -> str | None:
        return None

    def _choose(self, point: Point) -> str:
        """The recipe's metric, or the first whose direction is known."""
        if self._facts.metric in point.metrics:
            return str(self._facts.metric)
        known = [name for name in point.metrics if _direction(name)]
        return min(known, key=lambda name: (len(name.split("_")), "overall" not in name), default="")

    def _sign(self) -> int:
        if self._name == self._facts.metric and self._facts.lower_is_better is not None:
            return -1 if self._facts.lower_is_better else 1
        return _direction(self._name)


class NoisyEvaluation:
    """Evaluations whose noise hides the gains between them.

    Rule: over the last 8 evaluations, which turned at least 4 times, the noise (two standard errors, or where
    these are unknown two deviations about a smooth curve) is over 5 % of the loss and above the fall over
    these evaluations. Reported once, as a remark.
    Delay: 8 evaluations. False alarms: a remark only.
    """

    kind: ClassVar[str] = "noisy_evaluation"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evaluations = Evaluations()
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        now = self._evaluations.add(point)
        if now is None or self._is_reported or self._evaluations.count < 8:
            return None
        recent = list(self._evaluations.recent)[-8:]
        losses = [each.loss for each in recent]
        signs = [later > before for before, later in pairwise(losses)]
        turns = sum(a != b for a, b in pairwise(signs))
        error = 2 * (now.error if now.error is not None else noise(losses))
        slope, _, _ = theil_sen(range(8), losses)
        if turns < 4 or error < 0.05 * abs(now.loss) or error < -7 * slope:
            return None
        self._is_reported = True
        rows = f" of {self._facts.eval_rows:,} rows" if self._facts.eval_rows else ""
        return Finding(
            now.step,
            "evaluations are too noisy to rank checkpoints",
            f"the last 8 losses lie between {min(losses):.4g} and {max(losses):.4g} and turned "
            f"{turns} times; chance alone "
            f"moves them by {error:.2g}",
            f"use more validation rows{rows and ', now' + rows.removeprefix(' of')}; set "
            f"evaluate.min_improvement above "
            f"{error:.2g}",
            severity="info",
            window=[recent[0].step, now.step],
            causes=["too few validation rows", "a learning rate that is too high"],
            changes={"evaluate.min_improvement": float(f"{error:.2g}")},
            not_tested=["standard errors over validation rows"] if now.error is None else [],
            kind=self.kind,
            confidence=0.6,
        )

    def untold(self) -> str | None:
        return None


class EndOnNoise:
    """An evaluation at which patience ends the run, though chance alone may have hidden a gain.

    Rule: `patience` evaluations in a row without a better loss, where that is the metric, in the first half
    of the steps and within the first epoch, in which no row can be learnt by heart; the last loss is no worse
    than the best by two standard errors, or these are unknown.
    Source: arithmetic. Delay: none. False alarms: none on made healthy curves, which have no patience.
    """

    kind: ClassVar[str] = "ended_on_noise"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evaluations = Evaluations()
        self._last_step = 0
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        patience, steps, a_pass = self._facts.patience, self._facts.steps, self._facts.steps_per_epoch
        if not (patience and steps and a_pass) or self._facts.metric != "loss":
            return None
        now, best = self._evaluations.add(point), self._evaluations.best
        if now is None or best is None:
            return None
        every, self._last_step = max(now.step - self._last_step, 1), now.step
        if self._is_reported or self._evaluations.since_best < patience or now.step >= min(steps / 2, a_pass):
            return None
        errors = None if None in (now.error, best.error) else math.hypot(now.error or 0.0, best.error or 0.0)
        if errors is not None and now.loss - best.loss > 2 * errors:
            return None
        self._is_reported = True
        rows = f" of {self._facts.eval_rows:,} rows" if self._facts.eval_rows else ""
        noise_ = (
            "their noise is not known" if errors is None else f"chance alone moves them by {2 * errors:.2g}"
        )
        longer = max(3 * patience, math.ceil(_PATIENT * steps / every))
        return Finding(
            now.step,
            "patience ends the run on the noise of its evaluations",
            f"validation loss {best.loss:.4g} at step {best.step:,} and {now.loss:.4g} at step {now.step:,} "
            f"of {steps:,}{rows}; {noise_}, and no row was seen twice",
            f"set evaluate.patience to {longer}, a fifth of the steps, or take more validation rows",
            window=[best.step, now.step],
            causes=["patience that is shorter than the noise of the evaluations", "too few validation rows"],
            changes={"evaluate.patience": longer},
            not_tested=["whether the loss would have fallen further"],
            kind=self.kind,
            confidence=0.7,
        )

    def untold(self) -> str | None:
        return None


class EvaluationSpike:
    """An evaluation whose loss is far above both its neighbours.

    Rule: above 1.25 times each, by 0.02, and by three standard errors where these are known. Told once.
    Source: label rule of the real curves. Delay: the evaluation after it. False alarms: none on 27 real and
    2,000 made healthy curves.
    """

    kind: ClassVar[str] = "evaluation_spike"

    def __init__(self, facts: Facts) -> None:
        self._last: deque[tuple[int, float, float]] = deque(maxlen=3)  # step, loss and error
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss = point.eval_loss
        if loss is None or not math.isfinite(loss):
            return None
        self._last.append((point.step, loss, point.eval_error or 0.0))
        if len(self._last) < 3:
            return None
        (_, before, _), (step, top, error), (_, after, _) = self._last
        usual = max(before, after)
        if self._is_reported or top <= 1.25 * usual or top - usual <= max(0.02, 3 * error):
            return None
        self._is_reported = True
        return Finding(
            point.step,
            "one evaluation is far worse than both its neighbours",
            f"validation loss {top:.4g} at step {step:,}, {before:.4g} before and {after:.4g} after it",
            f"keep away from the checkpoint of step {step:,}; if it happens again, lower optim.learning_rate",
            window=[step, point.step],
            causes=[
                "a learning rate at the edge of what is stable",
                "an evaluation that did not see all its rows",
            ],
            not_tested=["the evaluation of this checkpoint again"],
            kind=self.kind,
            confidence=0.5,
        )

    def untold(self) -> str | None:
        return None


class Contamination:
    """A validation loss far below that of training, as of rows that are trained on.

    Rule: validation loss below half of the training loss (the last, and the median of the last 5, at this
    evaluation and those before), by 0.1 and three standard errors. It is a warning where these are known,
    else a remark: dropout and losses that are summed look alike. A first loss above that of a guess among a
    million tokens puts the sum first among the causes.
    Delay: the first evaluation that shows it. False alarms: no warning on 27 real and 2,000 made healthy
    curves.
    """

    kind: ClassVar[str] = "contamination"

    def __init__(self, facts: Facts) -> None:
        self._losses: deque[float] = deque(maxlen=5)
        self._lowest = math.inf  # level of training at an evaluation
        self._first = self._last = math.nan
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss, unseen = point.loss, point.eval_loss
        if loss is not None and not point.skipped and math.isfinite(loss):
            self._losses.append(loss)
            self._last = loss
            self._first = loss if math.isnan(self._first) else self._first
        if unseen is None or self._is_reported or len(self._losses) < 3 or not math.isfinite(unseen):
            return None
        self._lowest = min(self._lowest, statistics.median(self._losses), self._last)
        train, error = self._lowest, point.eval_error
        if not (0 <= unseen < 0.5 * train and train - unseen > max(0.1, 3 * (error or 0.0))):
            return None
        self._is_reported = True
        seen = "validation rows that are trained on"
        summed = "a training loss that is summed over micro-batches, or has dropout and label smoothing"
        is_beyond = self._first > _BEYOND_CHANCE
        began = f", {self._first:.4g} at first, more than a guess has" if is_beyond else ""
        return Finding(
            point.step,
            "validation loss is far below that of training",
            f"validation loss {unseen:.4g} at step {point.step:,}, training loss {train:.4g} (median "
            f"of the last points){began}",
            "look for validation rows among those of training, by hash and near-duplicates, and "
            "split by repository "
            "or author",
            severity="info" if error is None else "warning",
            window=[point.step, point.step],
            causes=[*([summed, seen] if is_beyond else [seen, summed]), "validation rows that are easier"],
            changes={} if error is None else {"data.leakage.action": "drop"},
            not_tested=["overlap of the rows", "training loss without dropout"],
            kind=self.kind,
            confidence=0.4,
        )

    def untold(self) -> str | None:
        return None


def _direction(name: str) -> int:
    """1 for metrics of which more is better, -1 of which less, 0 for others."""
    words = name.lower().replace("/", "_").replace("-", "_").split("_")
    if any(word in words for word in _LOWER_IS_BETTER):
        return -1
    return int(any(word.startswith(each) for word in words for each in _HIGHER_IS_BETTER))

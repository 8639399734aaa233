"""Records of a run that count, read once, in the groups that reports are made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from etude.errors import MissingError
from etude.recipe.course import LAYOUT_KEYS
from etude.recipe.metric import ChosenMetric
from etude.records.changes import attempts_of
from etude.records.events import (
    Attempt,
    Control,
    DataUsed,
    Evaluation,
    Event,
    Generation,
    Note,
    Rating,
    Scores,
    Step,
)
from etude.records.folder import as_argument
from etude.records.ledger import Entry, Ledger
from etude.records.store import Run
from etude.records.window import OpenWindow, Window, join_short_end

E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class History:
    """A run and its ledger; what is asked for twice is computed once.

    then: figures of the other files of the folder by name, and `argument`, as they were when a report was
    written; what is not among them is as it is now
    """

    run: Run
    ledger: Ledger
    then: Mapping[str, Any] = field(default_factory=dict)

    @property
    def argument(self) -> str:
        """The run as commands take it."""
        return str(self.then.get("argument") or as_argument(self.run.path))

    def events(self, kind: type[E]) -> list[E]:
        """All records of a type that count, in order."""
        return [entry.event for entry in self.ledger.entries if isinstance(entry.event, kind)]

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Every attempt, each with the steps that were planned when it ended."""
        return attempts_of(entry.event for entry in self.ledger.entries)

    @cached_property
    def steps(self) -> list[Step]:
        return self.events(Step)

    @cached_property
    def metric(self) -> ChosenMetric:
        """The metric of the recipe; the attempt tells the direction of one's own."""
        text = self.run.recipe.evaluate.metric
        known = self.attempts[-1].lower_is_better if self.attempts else None
        parsed = ChosenMetric.parse(text)
        return parsed if known is None else replace(parsed, lower_is_better=known)

    @cached_property
    def rework(self) -> list[Step]:
        """Steps that a restart made void."""
        return [entry.event for entry in self.ledger.rework if isinstance(entry.event, Step)]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        return self.events(Evaluation)

    @cached_property
    def best(self) -> Evaluation | None:
        """The evaluation of the best moment; the one before training is none."""
        return next((evaluation for evaluation in reversed(self.evaluations) if evaluation.best), None)

    @cached_property
    def is_best_worse(self) -> bool | None:
        """True if the best is worse than the model before training; None where one of them is not known."""
        first = self.evaluations[0] if self.evaluations else None
        before = metric_value(first, str(self.metric)) if first and not first.step else None
        best = metric_value(self.best, str(self.metric))
        return None if before is None or best is None else self.metric.gain(best, before) < 0

    @cached_property
    def changes(self) -> list[tuple[int, str, Any]]:
        """Changes of the recipe that steps were made with: the step before, key and value.

        Those of the layout of a step are none: they leave the mathematics as it is.
        """
        last = self.steps[-1].step if self.steps else 0
        made = [
            (control.step if control.from_step is None else control.from_step, key, value)
            for control in self.events(Control)
            for key, value in control.changes.items()
        ]
        return [each for each in made if each[0] < last and each[1] not in LAYOUT_KEYS]

    @cached_property
    def scores(self) -> list[Scores]:
        """The newest scores of each split."""
        return list({scores.split: scores for scores in self.events(Scores)}.values())

    @cached_property
    def generations(self) -> list[Generation]:
        return self.events(Generation)

    @cached_property
    def ratings(self) -> list[Rating]:
        """The last rating of each text by each rater."""
        newest = {(r.rater, r.step, r.prompt, r.text, r.against): r for r in self.events(Rating)}
        return list(newest.values())

    @cached_property
    def base(self) -> dict[str, str] | None:
        """The pretrained model of the run: from, path, sha256."""
        return self.attempts[-1].environment.get("base") if self.attempts else None

    @cached_property
    def data(self) -> DataUsed | None:
        return next(iter(self.events(DataUsed)), None)

    @cached_property
    def windows(self) -> list[Window]:
        """The steps cut where a log line was due; what follows the last of them is a window too, or part of
        it."""
        window, windows, last = OpenWindow(), [], None
        for entry in self.ledger.entries:
            if ended := window.add(entry.event):
                windows.append(replace(ended, elapsed=self.elapsed(entry)))
            if isinstance(entry.event, Step):
                last = entry
        rest = window.rest()
        if rest and last:
            windows.append(replace(rest, elapsed=self.elapsed(last)))
        return join_short_end(windows)

    def elapsed(self, entry: Entry) -> float:
        """Seconds over all attempts, up to a record; the time between attempts does not count."""
        return max(entry.time - self._zero.get(entry.attempt, entry.time), 0.0)

    @cached_property
    def wall_seconds(self) -> float:
        """Seconds from the start to the last record of each attempt, rework and evaluations included."""
        return sum(end - start for start, end in self._spans.values())

    @cached_property
    def _spans(self) -> dict[int, tuple[float, float]]:
        """First and last time of each attempt; what people say may come days later."""
        spans: dict[int, tuple[float, float]] = {}
        for event, time, attempt in self.ledger.all:
            is_of_fork = isinstance(event, Control) and event.channel == "fork"
            if not isinstance(event, Note | Rating) and not is_of_fork:
                start, end = spans.get(attempt, (time, time))
                spans[attempt] = min(start, time), max(end, time)
        return dict(sorted(spans.items()))

    @cached_property
    def _zero(self) -> dict[int, float]:
        """The time at which each attempt would have started, had all come without a break."""
        zeros, before = {}, 0.0
        for attempt, (start, end) in self._spans.items():
            zeros[attempt] = start - before
            before += end - start
        return zeros


def read_history(run: Run) -> History:
    """Read the journal of a run, which may have been killed before its first record, or be going on."""
    try:
        return History(run, run.ledger())
    except MissingError:
        return History(run, Ledger([], [], []))


def figures_of(evaluation: Evaluation | None) -> dict[str, float]:
    """Metrics of an evaluation but its loss, by name; a share of nothing is left out."""
    metrics = evaluation.metrics if evaluation else {}
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def metric_value(evaluation: Evaluation | None, metric: str) -> float | None:
    """The value of a metric by the name that the recipe gives it; None where it was not measured."""
    if evaluation is None:
        return None
    of_loss = {
        "loss": evaluation.loss,
        "perplexity": evaluation.perplexity,
        "bits_per_byte": evaluation.bits_per_byte,
    }
    return of_loss[metric] if metric in of_loss else figures_of(evaluation).get(metric)

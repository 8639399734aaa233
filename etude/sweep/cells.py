"""The result of each trial of a sweep, from the journal of its run alone."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from etude.errors import InputError
from etude.recipe.load import flatten, recipe_hash
from etude.recipe.metric import ChosenMetric
from etude.records.events import Attempt, Evaluation, Scores
from etude.records.store import Run, list_runs
from etude.report.figures import Source
from etude.report.history import History, metric_value, read_history
from etude.report.predictions import Kept, read_kept
from etude.report.summary import Summary, status_word, summarize
from etude.report.verdict import constant_prediction
from etude.report.wording import short
from etude.sweep.baseline import Baseline, baseline_of_scores, baseline_of_tokens
from etude.sweep.grid import Trial
from etude.text import one_line, plural, shorten, verb

State = Literal[
    "finished", "ended early", "running", "paused", "stopped", "killed", "failed", "unknown", "missing",
    "damaged", "not started: budget", "censored",
]  # fmt: skip
_NORMAL = 1.959964  # half the width of an interval of 95 %, in standard errors


@dataclass(frozen=True)
class Cell:
    """A trial with what its run came to.

    history, summary  None while it has no run, or where that cannot be read
    problem           the reason why it cannot be read
    is_beyond         the budget left it out
    """

    trial: Trial
    history: History | None = None
    summary: Summary | None = None
    problem: str = ""
    is_beyond: bool = False

    @property
    def name(self) -> str:
        """The name of its trial."""
        return self.trial.name

    @property
    def run(self) -> str | None:
        """The name of its run."""
        return self.history.run.name if self.history else None

    @cached_property
    def state(self) -> State:
        """The state of its run.

        `ended early` is by a rule of its recipe, and counts as its end; `censored`: it was left at a rung.
        """
        if self.summary is None:
            return "damaged" if self.problem else "not started: budget" if self.is_beyond else "missing"
        word: State = status_word(self.summary)  # type: ignore[assignment]
        return "censored" if self.rung is not None else word

    @property
    def is_final(self) -> bool:
        """True if its value is the one that it ends with; any other is censored at the step that it has."""
        return self.state in ("finished", "ended early")

    @property
    def damage(self) -> str:
        """A sentence on what of its run cannot be read; "" if all can."""
        if self.history is None or self.summary is None:
            return self.problem
        if lines := self.history.ledger.damaged:
            count = plural(len(lines), "line")
            return f"{count} of its journal {verb(len(lines), 'are')} damaged, and figures leave them out"
        if self.summary["status"] == "unknown":
            return "it has finished, and its journal ends before that"
        made = {step.step for step in self.history.steps}
        last = max([*made, *self.evaluations], default=0)
        if last <= len(made):
            return ""
        lost = next(step for step in itertools.count(1) if step not in made)
        counts = f"{len(made):,} of {last:,} steps"
        return f"its journal has {counts}, the first that it lacks is {lost:,}, and figures leave them out"

    @cached_property
    def metric(self) -> ChosenMetric:
        """The metric of its recipe."""
        return self.history.metric if self.history else ChosenMetric.parse(self.trial.recipe.evaluate.metric)

    @cached_property
    def evaluations(self) -> dict[int, tuple[Evaluation, float]]:
        """The evaluations that its recipe asks for, by step, each with the time of its record."""
        entries = self.history.ledger.entries if self.history else []
        return {
            event.step: (event, time)
            for event, time, _ in entries
            if isinstance(event, Evaluation) and not event.asked
        }

    @property
    def rungs(self) -> list[int]:
        """The steps of the rungs of its trial; none before it has begun."""
        return self.trial.rungs(self.attempt.steps_per_epoch) if self.attempt else []

    @cached_property
    def rung(self) -> Evaluation | None:
        """The evaluation at the rung where it stopped and from which it has not gone on, whatever comes."""
        if self.summary is None or self.summary["status"] != "stopped":
            return None
        step = self.summary["step"]
        return self.evaluations[step][0] if step in self.rungs and step in self.evaluations else None

    @cached_property
    def best(self) -> Evaluation | None:
        """The evaluation of its best moment so far, if the metric was measured then; at a rung that there."""
        best = self.rung or (self.history.best if self.history else None)
        value = metric_value(best, str(self.metric))
        return best if value is not None and math.isfinite(value) else None

    @property
    def value(self) -> float | None:
        """The metric on validation rows at the best moment so far."""
        return metric_value(self.best, str(self.metric))

    @cached_property
    def scores(self) -> Scores | None:
        """The final scores of the task that the metric is of, if they are of that metric."""
        mine = [
            each
            for each in (self.history.scores if self.history else [])
            if each.split.rpartition(" ")[0] == self.metric.task and each.metric == self.metric.name
        ]
        return mine[-1] if mine else None

    @cached_property
    def kept(self) -> Kept | None:
        """The predictions of the validation rows that its run kept beside its final scores."""
        if self.scores is None or self.history is None:
            return None
        split = f"{self.metric.task} validation".strip()
        found = read_kept(self.history.run, replace(self.scores, split=split))
        return found if found and found.rows else None

    @property
    def test(self) -> list[float] | None:
        """The metric on test rows, with its interval; no trial is chosen by it."""
        is_test = self.scores is not None and self.scores.split.endswith("test")
        return self.scores.systems["after"][self.metric.name] if self.scores and is_test else None

    @cached_property
    def baseline(self) -> Baseline | None:
        """The best baseline beside it, by its final scores or else the frequencies of tokens."""
        if self.history is None or self.attempt is None:
            return None
        own_code = self.attempt.environment.get("own_code") or {}
        data = None if {"model", "loss"} & own_code.keys() else self.history.data
        return baseline_of_scores(self.scores, self.metric) or baseline_of_tokens(
            data, self.best, self.metric
        )

    @property
    def constant(self) -> str:
        """The reason why its value has no spread, as a clause: one label alone was predicted, or is there."""
        if self.scores is None or not self.scores.confusion:
            return ""
        if sum(map(any, self.scores.confusion)) == 1:
            return f"all {one_line(self.scores.split)} rows have one label"
        label = constant_prediction(self.scores)
        return "" if label is None else f"it predicts {one_line(label)} for all rows"

    @cached_property
    def error(self) -> tuple[float | None, str]:
        """The standard error of its value from the choice of rows, and where that comes from."""
        if self.history is None or self.best is None:
            return None, ""
        if str(self.metric) == "loss" and self.best.loss_error is not None:
            return self.best.loss_error, f"evaluation {self.best.step}"
        if self.scores is None:
            return None, ""
        if self.kept and (found := self.kept.standard_error()) is not None:
            return found, "predictions of the validation rows"
        _, low, high = self.scores.systems["after"][self.metric.name]
        spread = (high - low) / (2 * _NORMAL)
        return (spread if math.isfinite(spread) else None), f"scores of {self.scores.split} rows"

    @cached_property
    def converged(self) -> tuple[Evaluation, float] | None:
        """The first evaluation within one standard error of the best, and the seconds of training until then.

        None where the standard error is not known, or the trial has not ended.
        """
        error, value = self.error[0], self.value
        if not self.is_final or error is None or value is None or self.history is None:
            return None
        for entry in self.history.ledger.entries:
            event = entry.event
            if isinstance(event, Evaluation) and event.step:
                found = metric_value(event, str(self.metric))
                if found is not None and self.metric.gain(found, value) >= -error:
                    return event, self.history.elapsed(entry)
        return None

    @property
    def attempt(self) -> Attempt | None:
        """The last attempt of its run."""
        return self.history.attempts[-1] if self.history and self.history.attempts else None

    @property
    def progress(self) -> str:
        """The step that it has come to, of those planned, in words."""
        if self.summary is None:
            return ""
        steps = self.summary["steps"]
        if self.attempt:  # which of a fork may be that of the trial it comes from
            train = self.trial.recipe.train
            steps = train.steps or (train.epochs or 0) * self.attempt.steps_per_epoch
        of = f" of {steps:,}" if steps else ""
        return f"step {self.summary['step']:,}{of}"

    def source(self, figure: str) -> list[Source]:
        """The records behind a figure of its summary."""
        found = [each for each in (self.summary.figures if self.summary else []) if each.name == figure]
        return list(found[0].source) if found else []

    def __getitem__(self, figure: str) -> Any:
        """A figure of the summary of its run; None while it has none."""
        return self.summary[figure] if self.summary else None


def read_cells(trials: Sequence[Trial], runs: Mapping[str, Run | None]) -> list[Cell]:
    """The cells of trials, in their order, by the run of each; a damaged run is a damaged cell."""
    return [_read_cell(trial, runs.get(trial.name)) for trial in trials]


def find_runs_of(trials: Sequence[Trial], runs: Path) -> dict[str, Run | None]:
    """The run of each trial in a folder: of several the finished one, else the newest."""
    wanted = {recipe_hash(trial.recipe): trial.name for trial in trials}
    found: dict[str, Run | None] = dict.fromkeys(trial.name for trial in trials)
    for run in list_runs(runs):
        name = wanted.get(str(run.info["recipe_hash"]))
        if name is not None and ((old := found[name]) is None or old.is_unfinished):
            found[name] = run
    return found


def cell_text(cell: Cell, value: str) -> str:
    """A value with the mark of its state: nothing for a trial that did all its steps."""
    if cell.state == "finished":
        return value
    if cell.summary is None:
        return cell.state
    step = plural(cell["step"], "step")
    if cell.state == "ended early":
        return f"{value} (early, {step})"
    return f"{value} ({cell.state} at {step})" if cell.value is not None else f"{cell.state} at {step}"


def test_text(cell: Cell) -> str:
    """The metric of a trial on test rows with its interval, as the end of a sentence."""
    if cell.test is None:
        return ""
    value, low, high = cell.test
    return f"; on test rows {short(value, 4)} [{short(low)}, {short(high)}], 95 % interval"


def _read_cell(trial: Trial, run: Run | None) -> Cell:
    if run is None:
        return Cell(trial)
    try:
        history = read_history(run)
        if key := _other_key(trial, flatten(run.recipe.to_dict())):
            return Cell(
                trial, problem=f"its run {run.name} has another {key}, so it is that of another recipe"
            )
        return Cell(trial, history, summarize(run, history))
    except InputError as error:
        return Cell(trial, problem=shorten(str(error)))


def _other_key(trial: Trial, held: Mapping[str, Any]) -> str | None:
    """A key of the grid that a run, which holds these values, does not have as its trial does."""
    own = flatten(trial.recipe.to_dict())
    for key in flatten(dict(trial.values)):
        if key in own and own[key] != "auto" and own[key] != held.get(key):
            return shorten(key, 60)
    return None

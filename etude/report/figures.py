"""Figures of a run: each with its unit, its statistic, and the records that it is computed from."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

from etude.records.ending import Ending
from etude.records.events import (
    SEVERITIES,
    Attempt,
    Control,
    Evaluation,
    Event,
    Finding,
    Forecast,
    Judgement,
    plain,
    type_of,
)
from etude.records.shape import Object, fit
from etude.records.window import Window, mean_loss, mean_steps
from etude.report.criteria import criteria_text
from etude.report.history import History, figures_of, metric_value
from etude.report.interventions import interventions, origin_text
from etude.report.ratings import Ratings, count_ratings
from etude.report.verdict import find_problems, judge
from etude.text import one_line

_LONGEST_REASON = 320
CURVE_POINTS = 60


class Source(NamedTuple):
    """Records of one kind, from one step to another (attempts: by number), or a file of the run folder."""

    kind: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Figure:
    """A value that people see.

    value      None where the records do not have it
    unit       a key of UNITS
    statistic  how the value is computed from its source
    source     the records; empty where there are none yet
    """

    name: str
    value: Any
    unit: str
    statistic: str
    source: tuple[Source, ...]

    def to_json(self) -> Any:
        """The value as JSON has it."""
        return plain(asdict(self.value)) if isinstance(self.value, Ratings) else plain(self.value)


def _ratings(value: Any) -> Ratings:
    values = fit(value, _RATINGS)
    duels = {name: (each[0], each[1], each[2]) for name, each in values["duels"].items()}
    return Ratings(values["count"], values["mean"], values["raters"], duels)


def _three(values: list[int]) -> list[int]:
    if len(values) != 3:
        raise ValueError("no three counts")
    return values


_RATINGS = Object({
    "count": int, "mean": float | None, "raters": list[str],
    "duels": dict[str, Annotated[list[int], _three]],
})  # fmt: skip
UNITS: dict[str, Any] = {
    "text": str | None, "texts": list[str], "text by name": dict[str, str] | None, "step": int | None,
    "count": int | None, "lines": list[int], "epochs": float | None, "nats per target": float | None,
    "nats per target, in order": list[float], "bits per byte": float | None, "perplexity": float | None,
    "by name": dict[str, float], "ratings": Annotated[Any, _ratings], "tokens per second": float | None,
    "share": float | None, "percent": float | None, "bytes": int | None, "seconds": float | None,
    "of the metric": float | None, "flag": bool | None,
}  # fmt: skip
# Unit and statistic of each figure, in the order in which they are listed.
FIGURES: dict[str, tuple[str, str]] = {
    "name": ("text", "the folder's name"),
    "recipe": ("text", "the recipe's name"),
    "status": ("text", "the last attempt's end; without one the state of the process"),
    "reason": ("text", "why the status is what it is"),
    "end": ("text", "by the rules of report/verdict.py"),
    "verdict": ("texts", "by the rules of report/verdict.py"),
    "problems": ("texts", "by the rules of report/verdict.py"),
    "criteria": ("text", "the recipe's, after the last evaluation or final scores"),
    "origin": (
        "text",
        "the run that it goes on from with its step, that it makes again, or whose weights it began with",
    ),
    "interventions": ("texts", "requests and their answers, the watch's decisions and restarts"),
    "created": ("text", "UTC, to the second"),
    "device": ("text", "last attempt"),
    "devices": ("count", "last attempt"),
    "precision": ("text", "last attempt"),
    "parameters": ("count", "all of the model"),
    "trainable": ("count", "parameters that are trained"),
    "base": ("text by name", "the pretrained model: from, path, sha256"),
    "step": ("step", "last that counts"),
    "steps": ("count", "planned"),
    "epochs": ("epochs", "last step over the steps of an epoch"),
    "tokens": ("count", "targets of the steps that count"),
    "first_loss": ("nats per target", "mean over the targets of the first loss_window steps"),
    "last_loss": ("nats per target", "mean over the targets of the last loss_window steps"),
    "least_loss": ("nats per target", "lowest finite mean of a log window"),
    "loss_window": ("count", "steps of the first log window, ten if that is one, at most half of all"),
    "loss_curve": ("nats per target, in order", f"means of up to {CURVE_POINTS} evenly spaced log windows"),
    "metric": ("text", "the recipe's evaluate.metric"),
    "lower_is_better": ("flag", "of the metric"),
    "metric_first": ("of the metric", "first evaluation"),
    "metric_best": ("of the metric", "last evaluation that was the best so far, after the first step"),
    "metric_best_step": ("step", "of the best value of the metric"),
    "metric_last": ("of the metric", "last evaluation"),
    "is_best_worse": ("flag", "best value of the metric against that before training"),
    "first_validation_loss": ("nats per target", "first evaluation"),
    "best_validation_loss": ("nats per target", "lowest finite one since the first step"),
    "best_validation_step": ("step", "of the lowest finite validation loss"),
    "best_perplexity": ("perplexity", "at the lowest validation loss"),
    "best_bits_per_byte": ("bits per byte", "at the lowest validation loss"),
    "last_validation_loss": ("nats per target", "last evaluation"),
    "last_validation_step": ("step", "of the last evaluation"),
    "last_perplexity": ("perplexity", "last evaluation"),
    "last_bits_per_byte": ("bits per byte", "last evaluation"),
    "validation_curve": ("nats per target, in order", f"up to {CURVE_POINTS} evenly spaced evaluations"),
    "figures_first": ("by name", "metrics of the first evaluation"),
    "figures_best": ("by name", "metrics of the last evaluation that was the best so far"),
    "figures_last": ("by name", "metrics of the last evaluation"),
    "ratings": ("ratings", "counts and mean of the last rating of each text by each rater"),
    "gap": ("nats per target", "last validation loss less the mean of the loss_window steps before it"),
    "tokens_per_second": ("tokens per second", "tokens of samples over the seconds of the steps that count"),
    "computed_ratio": ("share", "of the tokens of samples, computed; the others are prefixes of others"),
    "mfu": ("share", "mean over time, of the measured matrix rate"),
    "wait_ratio": ("share", "of the step seconds, waiting for data"),
    "cpu_percent": ("percent", "mean over time, of one core"),
    "gpu_percent": ("percent", "mean over time"),
    "peak_rss_bytes": ("bytes", "largest measured"),
    "peak_gpu_memory_bytes": ("bytes", "largest measured"),
    "wall_seconds": ("seconds", "from the start to the last record of each attempt, summed"),
    "clock_jumps": ("count", "jumps of the clock during attempts, which no time here has"),
    "training_seconds": ("seconds", "sum over steps, rework included"),
    "evaluation_seconds": ("seconds", "sum over evaluations"),
    "estimate_seconds": ("seconds", "of the whole run, by arithmetic before its first step"),
    "estimate_memory_bytes": ("bytes", "of the GPU, or of the process, by a trace of a step"),
    "estimate_disk_bytes": ("bytes", "of the run's checkpoints and records, before its first step"),
    "forecast_seconds": ("seconds", "of the whole run, by its first steps"),
    "forecast_memory_bytes": ("bytes", "of the GPU, or of the process where there is none"),
    "forecast_disk_bytes": ("bytes", "of the run's checkpoints and records, by its first steps"),
    "disk_bytes": ("bytes", "of the run folder, without what is made from its record"),
    "attempts": ("count", "starts and restarts"),
    "rework_steps": ("count", "steps that were done again after a restart"),
    "rework_seconds": ("seconds", "sum over the steps that were done again"),
    "skipped_steps": ("count", "steps that changed no weight"),
    "checkpoints": ("texts", "those on disk, oldest first"),
    "best_checkpoint": ("text", "the best by the metric of the run"),
    "best_metric": ("text", "the metric of the run"),
    "best_value": ("of the metric", "at the best checkpoint"),
    "findings": ("count", "findings that count"),
    "findings_by_severity": ("by name", "findings that count: errors, warnings and infos"),
    "damaged_lines": ("lines", "numbers of the lines of the journal that are left out"),
}
Computed = Iterator[tuple[str, Any, tuple[Source, ...]]]


def make_figure(name: str, value: Any, source: Iterable[Source]) -> Figure:
    """A figure by its name in FIGURES."""
    return Figure(name, value, *FIGURES[name], tuple(source))


def journal_figures(history: History) -> list[Figure]:
    """All figures that the journal alone gives; status and reason are None without an end of the attempt."""
    figures = [*told_figures(history), *_make(history, [_progress, _training, _gap, _resources, _time])]
    values, everything = {figure.name: figure.value for figure in figures}, (Source("journal.jsonl"),)
    return [
        *figures,
        make_figure("verdict", judge(history, values), everything),
        make_figure("problems", find_problems(history, values), everything),
    ]


def told_figures(history: History) -> list[Figure]:
    """The figures of a journal that need no steps and resources, which are nearly all of its lines."""
    groups = [_conditions, _steering, _end, _metric, _validation, _people, _course, _forecast]
    return _make(history, groups)


def source_of(events: Sequence[Event | None]) -> tuple[Source, ...]:
    """The source of a figure that is made of some records of one kind, from the first to the last."""
    if not events or events[0] is None or events[-1] is None:
        return ()
    return (Source(type_of(events[0]), _place(events[0]), _place(events[-1])),)


def lowest(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation with the lowest finite loss, among those after the first step."""
    made = (evaluation for evaluation in evaluations if evaluation.step and math.isfinite(evaluation.loss))
    return min(made, key=lambda evaluation: evaluation.loss, default=None)


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` evenly spaced values, with the first and the last."""
    if len(values) <= count:
        return list(values)
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def _make(history: History, groups: Sequence[Callable[[History], Computed]]) -> list[Figure]:
    return [make_figure(*computed) for group in groups for computed in group(history)]


def _conditions(history: History) -> Computed:
    attempt = history.attempts[-1] if history.attempts else None
    source = source_of(history.attempts[-1:])
    for name in ("device", "devices", "precision", "trainable", "steps"):
        yield name, attempt and getattr(attempt, name), source
    yield "parameters", attempt and attempt.parameters["total"], source
    yield "base", history.base, source


def _steering(history: History) -> Computed:
    yield "origin", origin_text(history), (Source("run.json"),)
    made: list[Event] = [*history.events(Control), *history.attempts[1:]]
    yield "interventions", [str(each) for each in interventions(history)], source_of(made)


def _end(history: History) -> Computed:
    """Status and reason, where the last attempt recorded its end."""
    attempt = history.attempts[-1].number if history.attempts else 0
    for entry in reversed(history.ledger.entries):
        event = entry.event
        if isinstance(event, Control) and entry.attempt == attempt and (ending := Ending.of(event)):
            yield "status", ending.state, source_of([event])
            yield "reason", one_line(ending.reason, _LONGEST_REASON), source_of([event])
            return


def _progress(history: History) -> Computed:
    steps, attempt = history.steps, history.attempts[-1] if history.attempts else None
    source = source_of(steps)
    last = steps[-1].step if steps else 0
    yield "step", last, source_of(steps[-1:])
    yield "epochs", last / attempt.steps_per_epoch if attempt and steps else None, source_of(steps[-1:])
    yield "tokens", sum(step.targets for step in steps), source
    yield "skipped_steps", sum(step.skipped for step in steps), source


def _training(history: History) -> Computed:
    steps, losses = history.steps, [window.loss for window in history.windows]
    every, count = source_of(steps), _loss_window(history)
    yield "first_loss", mean_loss(steps[:count]) if steps else None, source_of(steps[:count])
    yield "last_loss", mean_loss(steps[-count:]) if steps else None, source_of(steps[-count:])
    yield "least_loss", min(filter(math.isfinite, losses), default=None), every
    yield "loss_window", count, source_of(steps[:count])
    yield "loss_curve", [round(loss, 5) for loss in spread(losses, CURVE_POINTS)], every


def _loss_window(history: History) -> int:
    steps = history.steps
    return mean_steps(len(history.windows[0].steps), len(steps)) if steps else 0


def _metric(history: History) -> Computed:
    evaluations, metric = history.evaluations, str(history.metric)
    first, last = (evaluations[0], evaluations[-1]) if evaluations else (None, None)
    yield "metric", metric, (Source("resolved.toml"),)
    yield "lower_is_better", history.metric.lower_is_better, source_of(history.attempts[-1:])
    yield "metric_first", metric_value(first, metric), source_of([first])
    yield "metric_best", metric_value(history.best, metric), source_of([history.best])
    yield "metric_best_step", history.best and history.best.step, source_of([history.best])
    yield "metric_last", metric_value(last, metric), source_of([last])
    yield "is_best_worse", history.is_best_worse, source_of([first, history.best])


def _validation(history: History) -> Computed:
    evaluations = history.evaluations
    first, last = (evaluations[0], evaluations[-1]) if evaluations else (None, None)
    best, chosen = lowest(evaluations), history.best
    yield "first_validation_loss", first and first.loss, source_of([first])
    predicts_tokens = not any(part.kind.has_labels for part in history.run.recipe.by_task().values())
    for which, evaluation in (("best", best), ("last", last)):
        source = source_of([evaluation])
        yield f"{which}_validation_loss", evaluation and evaluation.loss, source
        yield f"{which}_validation_step", evaluation and evaluation.step, source
        yield f"{which}_perplexity", evaluation.perplexity if evaluation and predicts_tokens else None, source
        yield f"{which}_bits_per_byte", evaluation and evaluation.bits_per_byte, source
    curve = [round(each.loss, 5) for each in spread(evaluations, CURVE_POINTS)]
    yield "validation_curve", curve, source_of(evaluations)
    for which, evaluation in (("first", first), ("best", chosen), ("last", last)):
        yield f"figures_{which}", figures_of(evaluation), source_of([evaluation])


def _gap(history: History) -> Computed:
    last = history.evaluations[-1] if history.evaluations else None
    near = [step for step in history.steps if last and step.step <= last.step][-_loss_window(history) :]
    is_known = last and near and history.run.recipe.is_loss_plain
    gap = last.loss - mean_loss(near) if last and is_known else None
    yield "gap", gap, (*source_of([last]), *source_of(near))


def _people(history: History) -> Computed:
    yield "ratings", count_ratings(history.ratings), (Source("rating"),) if history.ratings else ()


def _resources(history: History) -> Computed:
    steps, windows = history.steps, history.windows
    seconds, resources = sum(step.seconds for step in steps), [w.resource for w in windows if w.resource]
    measured, source = source_of(resources), source_of(steps)
    tokens = sum(step.targets if step.tokens is None else step.tokens for step in steps)
    yield "tokens_per_second", tokens / seconds if seconds else None, source
    computed = sum(step.computed_tokens or step.tokens or step.targets for step in steps)
    yield "computed_ratio", computed / tokens if computed < tokens else None, source
    yield "wait_ratio", sum(step.wait_seconds for step in steps) / seconds if seconds else None, source
    for name in ("mfu", "cpu_percent", "gpu_percent"):
        yield name, _mean(windows, name), measured
    memory = [each.gpu_memory_bytes for each in resources if each.gpu_memory_bytes]
    yield "peak_rss_bytes", max((each.rss_bytes for each in resources), default=None), measured
    yield "peak_gpu_memory_bytes", max(memory, default=None), measured


def _course(history: History) -> Computed:
    evaluations, findings = history.evaluations, history.events(Finding)
    yield "evaluation_seconds", round(sum(each.seconds for each in evaluations), 6), source_of(evaluations)
    yield "attempts", len(history.attempts), source_of(history.attempts)
    yield "findings", len(findings), source_of(findings)
    counts = {severity: sum(each.severity == severity for each in findings) for severity in SEVERITIES}
    yield "findings_by_severity", counts, source_of(findings)
    yield "criteria", criteria_text(history), source_of(history.events(Judgement)[-1:])


def _time(history: History) -> Computed:
    steps, rework = history.steps, history.rework
    again = sum(step.seconds for step in rework)
    yield "wall_seconds", round(history.wall_seconds, 3), source_of(history.attempts)
    yield "clock_jumps", len(history.ledger.jumps), ()
    yield "training_seconds", round(sum(step.seconds for step in steps) + again, 6), source_of(steps)
    yield "rework_steps", len(rework), source_of(rework)
    yield "rework_seconds", round(again, 6), source_of(rework)
    yield "damaged_lines", history.ledger.damaged, ()


def _forecast(history: History) -> Computed:
    forecasts = history.events(Forecast)
    for kind, is_first in (("estimate", True), ("forecast", False)):
        made = next((each for each in forecasts if (each.step == 0) == is_first), None)
        for name in ("seconds", "memory_bytes", "disk_bytes"):
            yield f"{kind}_{name}", made and getattr(made, name), source_of([made])


def _place(event: Event) -> int | None:
    return event.number if isinstance(event, Attempt) else getattr(event, "step", None)


def _mean(windows: Iterable[Window], field: str) -> float | None:
    """Mean of a field of Resource over time."""
    measured = [(getattr(w.resource, field), w.seconds) for w in windows if w.resource]
    known = [(value, seconds) for value, seconds in measured if value is not None and math.isfinite(value)]
    total = sum(seconds for _, seconds in known)
    return sum(value * seconds for value, seconds in known) / total if total else None

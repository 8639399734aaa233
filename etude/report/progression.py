"""The progression of runs: data, loss, stability, time and quality of each, and its outcome."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from etude.records.events import Step, plain
from etude.report.charts import braille_curve
from etude.report.figures import lowest
from etude.report.history import History, figures_of
from etude.report.summary import Summary
from etude.report.wording import NOTHING, at_step, duration, number, parameters_text, percent
from etude.text import one_line, plural

_CHART_WIDTH, _CHART_LINES = 60, 6
_VALIDATION = "validation loss"
_SETTINGS = {
    "learning rate": "optim.learning_rate", "schedule": "schedule.kind", "rank": "adapter.rank",
    "epochs planned": "train.epochs", "samples a step": "train.global_batch_size",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One run of a progression; None where its journal does not tell.

    samples              of the training data; `samples_seen` counts every pass
    best_loss, last_loss in nats per target, by the statistic of the progression
    grad_norm            median of the finite norms before clipping; `grad_spread` is the range of their
                         middle half over the median
    epoch_seconds        steps of an epoch at the mean time of a step, without evaluations
    seconds              in steps that count
    figures              metrics of the best evaluation
    status, reason       the outcome, and its evidence
    curve, mark          training loss of every step, and the place of the best among them
    """

    name: str
    settings: dict[str, Any]
    samples: int | None
    samples_seen: int
    epochs: float | None
    best_loss: float | None
    best_step: int | None
    last_loss: float | None
    grad_norm: float | None
    grad_spread: float | None
    grad_max: float | None
    skipped_steps: int
    epoch_seconds: float | None
    step_seconds: float | None
    samples_per_second: float | None
    seconds: float
    parameters: str
    figures: dict[str, float]
    ratings: str
    status: str
    reason: str
    curve: list[float]
    mark: int | None


@dataclass(frozen=True)
class Progression:
    """Runs in the order given; each is held against the one before.

    statistic   the loss that is compared
    same_data   True if all were trained and validated on the same samples; None where a run has not told
    """

    statistic: str
    same_data: bool | None
    stages: list[Stage]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = [
            {k: v for k, v in asdict(stage).items() if k not in ("curve", "mark")} for stage in self.stages
        ]
        values = {"statistic": self.statistic, "same_data": self.same_data, "stages": stages}
        return {name: plain(value) for name, value in values.items()} | {"scaling": self.scaling()}

    def rows(self) -> list[list[str]]:
        """A table for the terminal: a column a run, with the change from the run before in percent."""

        def of(field: str) -> list[Any]:
            return [getattr(stage, field) for stage in self.stages]

        settings = {what: [stage.settings[key] for stage in self.stages] for what, key in _SETTINGS.items()}
        metrics = {name: [stage.figures.get(name) for stage in self.stages] for name in self._metrics()}
        return [
            ["progression", *of("name")],
            _row("training samples", of("samples")),
            _row("samples seen", of("samples_seen")),
            _row("epochs", of("epochs"), lambda value: number(value, 2)),
            *[[what, *map(_setting_text, v)] for what, v in settings.items() if set(v) != {None}],
            ["parameters", *of("parameters")],
            _row(f"{self.statistic}, best", of("best_loss")),
            ["  at step", *map(number, of("best_step"))],
            _row(f"{self.statistic}, last", of("last_loss")),
            _row("gradient norm, median", of("grad_norm")),
            ["  middle half within, of it", *map(percent, of("grad_spread"))],
            _row("  largest", of("grad_max")),
            ["skipped steps", *map(number, of("skipped_steps"))],
            _row("time per epoch", of("epoch_seconds"), _time),
            _row("time per step, median", of("step_seconds"), _time),
            _row("samples/s", of("samples_per_second"), lambda value: number(value, 3)),
            _row("time in steps", of("seconds"), _time),
            *[_row(name.replace("_", " "), values, is_share=True) for name, values in metrics.items()],
            ["ratings", *[text or NOTHING for text in of("ratings")]],
            ["status", *of("status")],
        ]

    def lines(self) -> list[str]:
        """The rest for the terminal: cautions, cost, reason of each status, and charts of the loss."""
        cautions = []
        if self.statistic != _VALIDATION:
            cautions.append("not every run has a validation loss, so training losses are compared")
        if self.same_data is False:
            cautions.append("the data differs from run to run, so the losses may be of different samples")
        reasons = [f"{stage.name}: {stage.status}: {stage.reason}" for stage in self.stages]
        charts = [line for stage in self.stages for line in ("", *_chart(stage))]
        return [*cautions, *self.scaling(), *reasons, *charts]

    def scaling(self) -> list[str]:
        """A sentence for each run but the first on the growth of time with the data."""
        return [_scaling(before, after) for before, after in itertools.pairwise(self.stages)]

    def _metrics(self) -> list[str]:
        return list(dict.fromkeys(name for stage in self.stages for name in stage.figures))


def make_progression(
    histories: Sequence[History], summaries: Sequence[Summary], same_data: bool | None
) -> Progression:
    """Hold runs against each other by validation loss, or by training loss where one has none."""
    is_validated = all(lowest(history.evaluations) for history in histories)
    statistic = _VALIDATION if is_validated else "training loss (mean over an epoch)"
    return Progression(statistic, same_data, [_stage(h, s, statistic) for h, s in zip(histories, summaries)])


def _stage(history: History, summary: Summary, statistic: str) -> Stage:
    steps, attempt = history.steps, history.attempts[-1] if history.attempts else None
    seconds = sum(step.seconds for step in steps)
    seen = sum(step.samples for step in steps)
    norms = [step.grad_norm for step in steps if math.isfinite(step.grad_norm)]
    middle = statistics.quantiles(norms, n=4) if len(norms) > 1 else norms * 3
    per_epoch = attempt.steps_per_epoch if attempt else None
    if statistic == _VALIDATION:
        best_loss, best_step = summary["best_validation_loss"], summary["best_validation_step"]
        last_loss = summary["last_validation_loss"]
    else:
        best_loss, best_step, last_loss = _epoch_means(steps, per_epoch or 1)
    status, reason = _status(history, summary)
    recipe = history.run.recipe
    return Stage(
        name=history.run.name,
        settings={key: _setting(recipe, key) for key in _SETTINGS.values()},
        samples=(history.data.summary.get("train") or {}).get("samples") if history.data else None,
        samples_seen=seen,
        epochs=summary["epochs"],
        best_loss=best_loss,
        best_step=best_step,
        last_loss=last_loss,
        grad_norm=middle[1] if norms else None,
        grad_spread=(middle[2] - middle[0]) / middle[1] if norms and middle[1] else None,
        grad_max=max(norms, default=None),
        skipped_steps=summary["skipped_steps"],
        epoch_seconds=per_epoch * seconds / len(steps) if per_epoch and steps else None,
        step_seconds=statistics.median(step.seconds for step in steps) if steps else None,
        samples_per_second=seen / seconds if seconds else None,
        seconds=seconds,
        parameters=parameters_text(summary["parameters"], summary["trainable"]),
        figures=figures_of(history.best),
        ratings=str(summary["ratings"]),
        status=status,
        reason=reason,
        curve=[step.loss for step in steps],
        mark=next((index for index, step in enumerate(steps) if step.step == best_step), None),
    )


def _epoch_means(steps: Sequence[Step], per_epoch: int) -> tuple[float | None, int | None, float | None]:
    """Lowest mean training loss of an epoch's steps in a row, its last step, and the mean of the last."""
    kept = [step for step in steps if math.isfinite(step.loss)]
    if not kept:
        return None, None, None
    width = min(per_epoch, len(kept))
    losses, targets = [0.0], [0]
    for step in kept:
        losses.append(losses[-1] + step.loss * step.targets)
        targets.append(targets[-1] + step.targets)
    means = [
        (losses[end] - losses[end - width]) / max(targets[end] - targets[end - width], 1)
        for end in range(width, len(kept) + 1)
    ]
    least = min(range(len(means)), key=means.__getitem__)
    return means[least], kept[least + width - 1].step, means[-1]


def _status(history: History, summary: Summary) -> tuple[str, str]:
    """The outcome of a run and its evidence; a quality that no evaluation has measured is none."""
    if summary["status"] not in ("finished", "stopped"):
        return summary["status"], summary["reason"]
    status, reason = _outcome(history, summary)
    if summary["steps"] is not None and summary["step"] < summary["steps"]:
        reason += f"; at step {summary['step']:,} of {summary['steps']:,}: {summary['reason']}"
    return status, reason


def _outcome(history: History, summary: Summary) -> tuple[str, str]:
    best, last = lowest(history.evaluations), summary["last_validation_loss"]
    if summary["last_loss"] is not None and not math.isfinite(summary["last_loss"]):
        return "diverged", f"training loss is {summary['last_loss']} at step {summary['step']:,}"
    if last is not None and not math.isfinite(last):
        return "diverged", f"validation loss is {last} at step {summary['last_validation_step']:,}"
    if best is None or last is None:
        return "not evaluated", "it has no validation loss: how it does on other data is not known"
    first = history.evaluations[0]
    answers = f"over {plural(best.targets, 'target')}{_answers(figures_of(history.best))}"
    if len(history.evaluations) == 1:
        once = f"validation loss {number(last)}, {answers}; there is none before to compare with"
        return "evaluated once", once
    if first.step == 0 and best.loss >= first.loss:
        never = f"validation loss never fell below {number(first.loss)}, that before training"
        return "no gain", f"{never}, {answers}"
    if last > best.loss:
        rise = f"validation loss rose to {number(last)} after {at_step(best.loss, best.step)}"
        return "best before the end", f"{rise}, {answers}"
    fall = f"validation loss fell from {at_step(first.loss, first.step)} to {number(last)} at the end"
    return "improved to the end", f"{fall}, {answers}"


def _answers(figures: dict[str, float]) -> str:
    if "stop_rate" not in figures:
        return "; no answer was judged"
    words = {
        "stop_rate": "of its answers end by themselves",
        "format_kept": "keep the format",
        "exact_match": "are exact",
    }
    return "; " + ", ".join(f"{percent(figures[name])} {words[name]}" for name in words if name in figures)


def _setting_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else number(value)


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{number(seconds, 3)} s"


def _setting(recipe: Any, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(recipe, section), name, None)


def _row(
    what: str, values: list[Any], text: Callable[[Any], str] = number, *, is_share: bool = False
) -> list[str]:
    """A row of the table: each value with its change from the one before."""
    changes = [_change(before, after, is_share) for before, after in itertools.pairwise(values)]
    cells = [NOTHING if value is None else text(value) for value in values]
    return [what, *(cell + change for cell, change in zip(cells, ["", *changes]))]


def _change(before: Any, after: Any, is_share: bool) -> str:
    """The change in percent of the value before, or as a difference where the value is a share already."""
    if before == after:
        return "" if after is None else " (same)"
    if before is None or after is None or not all(map(math.isfinite, (before, after))):
        return ""
    if is_share:
        return f" ({after - before:+.4f})"
    return f" ({100 * (after - before) / abs(before):+.1f} %)" if before else ""


def _scaling(before: Stage, after: Stage) -> str:
    names = f"{one_line(before.name)} to {one_line(after.name)}"
    if not all(stage.samples and stage.seconds and stage.samples_seen for stage in (before, after)):
        return f"{names}: how cost scaled is not known"
    assert before.samples and after.samples
    data, time = after.samples / before.samples, after.seconds / before.seconds
    seen = after.samples_seen / before.samples_seen
    return (
        f"{names}: {data:.2f} times the training samples took {time:.2f} times the time in steps, for "
        f"{seen:.2f} times the samples seen; a sample seen cost {time / seen:.2f} times as much"
    )


def _chart(stage: Stage) -> list[str]:
    finite = [loss for loss in stage.curve if math.isfinite(loss)]
    if len(finite) < 2:
        return [f"{stage.name}: too few steps for a chart"]
    mark = f"  ◆ best, step {stage.best_step:,}" if stage.mark is not None else ""
    lines = braille_curve(stage.curve, _CHART_WIDTH, _CHART_LINES, stage.mark)
    return [f"{stage.name}: training loss", f"{max(finite):.4f}", *lines, f"{min(finite):.4f}{mark}"]

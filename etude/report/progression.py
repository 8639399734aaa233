"""How one run led to the next: data, loss, stability, time and quality of each, and what it came to."""

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
from etude.report.wording import NOTHING, duration, number, parameters_text, percent
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

    samples             of the training data; `samples_seen` counts every pass
    best_loss, last_loss  in nats per target, by the statistic of the progression; `best_step` is where the
                          best was
    grad_norm           median of the finite norms before clipping; `grad_spread` is the range of their middle
                        half over the median, `grad_max` the largest
    epoch_seconds       steps of an epoch at the mean time of a step, without evaluations; `step_seconds` is
                        the median
    seconds             in steps that count
    figures             of the answers at the best evaluation
    status, reason      what the run came to, and what that is read from
    curve, mark         training loss of every step, and the place of the best among them
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

    statistic   which loss is compared
    same_data   whether all were trained and validated on the same samples; None where a run has not told
    """

    statistic: str
    same_data: bool | None
    stages: list[Stage]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        stages = [
            {k: v for k, v in asdict(stage).items() if k not in ("curve", "mark")} for stage in self.stages
        ]
        values = {"statistic": self.statistic, "same_data": self.same_data, "stages": stages}
        return {name: plain(value) for name, value in values.items()} | {"scaling": self.scaling()}

    def rows(self) -> list[list[str]]:
        """A table for the terminal: a column a run, with the change from the run before in percent."""
        names = dict.fromkeys(name for stage in self.stages for name in stage.figures)
        settings = [
            [what, *[_said(stage.settings[key]) for stage in self.stages]]
            for what, key in _SETTINGS.items()
            if any(stage.settings[key] is not None for stage in self.stages)
        ]
        rows = [
            self._row("training samples", lambda stage: stage.samples),
            self._row("samples seen", lambda stage: stage.samples_seen),
            self._row("epochs", lambda stage: stage.epochs, lambda value: number(value, 2)),
            *settings,
            ["parameters", *[stage.parameters for stage in self.stages]],
            self._row(f"{self.statistic}, best", lambda stage: stage.best_loss),
            ["  at step", *[number(stage.best_step) for stage in self.stages]],
            self._row(f"{self.statistic}, last", lambda stage: stage.last_loss),
            self._row("gradient norm, median", lambda stage: stage.grad_norm),
            ["  middle half within, of it", *[percent(stage.grad_spread) for stage in self.stages]],
            self._row("  largest", lambda stage: stage.grad_max),
            ["skipped steps", *[number(stage.skipped_steps) for stage in self.stages]],
            self._row("time per epoch", lambda stage: stage.epoch_seconds, _time),
            self._row("time per step, median", lambda stage: stage.step_seconds, _time),
            self._row("samples/s", lambda stage: stage.samples_per_second, lambda value: number(value, 3)),
            self._row("time in steps", lambda stage: stage.seconds, _time),
            *[self._figure_row(name) for name in names],
            ["ratings", *[stage.ratings or NOTHING for stage in self.stages]],
            ["status", *[stage.status for stage in self.stages]],
        ]
        return [["progression", *[stage.name for stage in self.stages]], *rows]

    def lines(self) -> list[str]:
        """The rest for the terminal: how cost scaled, why each status, and the loss of each run
        as a chart."""
        reasons = [f"{stage.name}: {stage.status}: {stage.reason}" for stage in self.stages]
        charts = [line for stage in self.stages for line in ("", *_chart(stage))]
        cautions = {
            "not every run has a validation loss, so training losses are compared": self.statistic
            != _VALIDATION,
            "the data differs from run to run, so the losses may be of different samples": self.same_data
            is False,
        }
        said = [caution for caution, holds in cautions.items() if holds]
        return [*said, *self.scaling(), *reasons, *charts]

    def scaling(self) -> list[str]:
        """A sentence for each run but the first: how time grew with the data."""
        return [_scaling(before, after) for before, after in zip(self.stages, self.stages[1:])]

    def _figure_row(self, name: str) -> list[str]:
        return self._row(name.replace("_", " "), lambda stage: stage.figures.get(name), relative=False)

    def _row(
        self,
        what: str,
        value: Callable[[Stage], Any],
        text: Callable[[Any], str] = number,
        relative: bool = True,
    ) -> list[str]:
        values = [value(stage) for stage in self.stages]
        cells = [NOTHING if each is None else text(each) for each in values]
        for index in range(1, len(values)):
            cells[index] += _change(values[index - 1], values[index], relative)
        return [what, *cells]


def make_progression(
    histories: Sequence[History], summaries: Sequence[Summary], same_data: bool | None
) -> Progression:
    """Hold runs against each other by validation loss, or by training loss where one has none."""
    if all(lowest(history.evaluations) for history in histories):
        statistic = _VALIDATION
    else:
        statistic = "training loss (mean over an epoch)"
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
    """Lowest training loss over the targets of any steps of an epoch in a row, its last step, and that of the
    last.
    """
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
    """What a run came to. Nothing is said of quality that no evaluation has measured."""
    if summary["status"] not in ("finished", "stopped"):
        return summary["status"], summary["reason"]
    status, reason = _outcome(history, summary)
    is_whole = summary["steps"] is None or summary["step"] >= summary["steps"]
    return (
        status,
        reason
        if is_whole
        else f"{reason}; at step {summary['step']:,} of {summary['steps']:,}: {summary['reason']}",
    )


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
        return (
            "evaluated once",
            f"validation loss {number(last)}, {answers}; there is none before to compare with",
        )
    if first.step == 0 and best.loss >= first.loss:
        return (
            "no gain",
            f"validation loss never fell below {number(first.loss)}, that before training, {answers}",
        )
    if last > best.loss:
        rise = f"validation loss rose to {number(last)} after {number(best.loss)} at step {best.step:,}"
        return "best before the end", f"{rise}, {answers}"
    fall = (
        f"validation loss fell from {number(first.loss)} at step {first.step:,} to {number(last)} at the end"
    )
    return "improved to the end", f"{fall}, {answers}"


def _answers(figures: dict[str, float]) -> str:
    if "stop_rate" not in figures:
        return "; no answer was judged"
    said = {
        "stop_rate": "of its answers end by themselves",
        "format_kept": "keep the format",
        "exact_match": "are exact",
    }
    return "; " + ", ".join(
        f"{percent(figures[name])} {words}" for name, words in said.items() if name in figures
    )


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else number(value)


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{number(seconds, 3)} s"


def _setting(recipe: Any, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(recipe, section), name, None)


def _change(before: Any, after: Any, relative: bool) -> str:
    """In percent of the value before, or as a difference where the value is a share already."""
    if before == after:
        return "" if after is None else " (same)"
    if before is None or after is None or not all(map(math.isfinite, (before, after))):
        return ""
    if not relative:
        return f" ({after - before:+.4f})"
    return f" ({100 * (after - before) / abs(before):+.1f} %)" if before else ""


def _scaling(before: Stage, after: Stage) -> str:
    names = f"{one_line(before.name)} to {one_line(after.name)}"
    known = (
        before.samples,
        after.samples,
        before.seconds,
        after.seconds,
        before.samples_seen,
        after.samples_seen,
    )
    if not all(known):
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

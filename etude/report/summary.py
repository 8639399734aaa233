"""A run in figures: what show, runs, compare and the report say, each figure from a field of the journal."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from etude.errors import InputError
from etude.records.events import Control, Evaluation, Finding, plain
from etude.records.folder import list_checkpoints
from etude.records.store import Run
from etude.records.window import Window
from etude.report.charts import sparkline
from etude.report.history import History, figures_of, read_history
from etude.report.ratings import Ratings, count_ratings
from etude.report.wording import (
    NOTHING,
    duration,
    in_seconds,
    number,
    numbers,
    parameters_text,
    percent,
    size,
)
from etude.text import one_line, plural

_CURVE_POINTS = 60


@dataclass(frozen=True)
class Summary:
    """What a run came to so far; None where the journal does not tell.

    status               finished, stopped, running, killed, failed, paused; `reason` says why
    *_loss               training loss in nats per target, mean over the targets of the first, last or lowest
                         log window
    loss_window          steps of the last log window
    loss_curve           up to 60 evenly spaced window means
    *_validation_loss    nats per target over the validation samples; best is the lowest finite one since the
                         first step
    figures_*            of the answers and the metrics of one's own, by name, at the first, best and last
                         evaluation
    gap                  last validation loss less the training loss of the log window before it, if both are
                         of a kind
    tokens, tokens_per_second  targets of the steps that count, and those over the sum of their seconds
    mfu, cpu_percent, gpu_percent  means over time; MFU against the measured matrix rate, CPU in percent of
                                   one core
    wait_ratio           share of the step seconds spent waiting for data
    wall_seconds         from the start to the last record of each attempt, summed
    training_seconds     step seconds, rework included; `rework_seconds` of them were done again after a
                         restart
    """

    name: str
    recipe: str
    status: str
    reason: str
    created: str
    device: str | None
    devices: int | None
    precision: str | None
    parameters: int | None
    trainable: int | None
    base: dict[str, str] | None
    step: int
    steps: int | None
    epochs: float | None
    tokens: int
    first_loss: float | None
    last_loss: float | None
    least_loss: float | None
    loss_window: int
    loss_curve: list[float]
    first_validation_loss: float | None
    best_validation_loss: float | None
    best_validation_step: int | None
    best_perplexity: float | None
    best_bits_per_byte: float | None
    last_validation_loss: float | None
    last_validation_step: int | None
    last_perplexity: float | None
    last_bits_per_byte: float | None
    figures_first: dict[str, float]
    figures_best: dict[str, float]
    figures_last: dict[str, float]
    ratings: Ratings
    gap: float | None
    tokens_per_second: float | None
    mfu: float | None
    wait_ratio: float | None
    cpu_percent: float | None
    gpu_percent: float | None
    peak_rss_bytes: int | None
    peak_gpu_memory_bytes: int | None
    wall_seconds: float
    training_seconds: float
    evaluation_seconds: float
    attempts: int
    rework_steps: int
    rework_seconds: float
    skipped_steps: int
    checkpoints: list[str]
    best_checkpoint: str | None
    best_metric: str | None
    best_value: float | None
    findings: int
    damaged_lines: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; non-finite numbers as "nan", "inf" and "-inf", as in the journal."""
        return {name: plain(value) for name, value in asdict(self).items()}


def summarize(run: Run) -> Summary:
    """Summarise a run from its folder, whatever state it is in.

    Raises: InputError if the folder is damaged.
    """
    return summarize_history(read_history(run))


def summarize_all(runs: Sequence[Run]) -> tuple[list[Summary], dict[str, str]]:
    """Summaries of the runs whose folders are whole, and by name what is wrong with the others."""
    summaries, damaged = [], {}
    for run in runs:
        try:
            summaries.append(summarize(run))
        except InputError as error:
            damaged[run.name] = str(error)
    return summaries, damaged


def summarize_history(history: History) -> Summary:
    """The same of a run whose journal has been read."""
    run, steps, windows = history.run, history.steps, history.windows
    attempt = history.attempts[-1] if history.attempts else None
    evaluations = history.evaluations
    first, last = (evaluations[0], evaluations[-1]) if evaluations else (None, None)
    best = lowest(evaluations)
    near = history.window_at(last.step) if last else None
    resources = [window.resource for window in windows if window.resource]
    seconds, tokens = sum(step.seconds for step in steps), sum(step.targets for step in steps)
    rework_seconds = sum(step.seconds for step in history.rework)
    status, reason = _status(history)
    chosen = run.best or {}
    return Summary(
        name=run.name,
        recipe=run.info["name"],
        status=status,
        reason=reason,
        created=in_seconds(run.info["created"]),
        device=attempt.device if attempt else None,
        devices=attempt.devices if attempt else None,
        precision=attempt.precision if attempt else None,
        parameters=attempt.parameters["total"] if attempt else None,
        trainable=attempt.trainable if attempt else None,
        base=history.base,
        step=steps[-1].step if steps else 0,
        steps=attempt.steps if attempt else None,
        epochs=steps[-1].step / attempt.steps_per_epoch if attempt and steps else None,
        tokens=tokens,
        first_loss=windows[0].loss if windows else None,
        last_loss=windows[-1].loss if windows else None,
        least_loss=min((w.loss for w in windows if math.isfinite(w.loss)), default=None),
        loss_window=len(windows[-1].steps) if windows else 0,
        loss_curve=[round(window.loss, 5) for window in spread(windows, _CURVE_POINTS)],
        first_validation_loss=first.loss if first else None,
        best_validation_loss=best.loss if best else None,
        best_validation_step=best.step if best else None,
        best_perplexity=best.perplexity if best else None,
        best_bits_per_byte=best.bits_per_byte if best else None,
        last_validation_loss=last.loss if last else None,
        last_validation_step=last.step if last else None,
        last_perplexity=last.perplexity if last else None,
        last_bits_per_byte=last.bits_per_byte if last else None,
        figures_first=figures_of(first),
        figures_best=figures_of(history.best),
        figures_last=figures_of(last),
        ratings=count_ratings(history.ratings),
        gap=last.loss - near.loss if last and near and run.recipe.is_loss_plain else None,
        tokens_per_second=tokens / seconds if seconds else None,
        mfu=_mean(windows, "mfu"),
        wait_ratio=sum(step.wait_seconds for step in steps) / seconds if seconds else None,
        cpu_percent=_mean(windows, "cpu_percent"),
        gpu_percent=_mean(windows, "gpu_percent"),
        peak_rss_bytes=max((resource.rss_bytes for resource in resources), default=None),
        peak_gpu_memory_bytes=max(
            (r.gpu_memory_bytes for r in resources if r.gpu_memory_bytes), default=None
        ),
        wall_seconds=round(history.wall_seconds, 3),
        training_seconds=round(seconds + rework_seconds, 6),
        evaluation_seconds=round(sum(evaluation.seconds for evaluation in evaluations), 6),
        attempts=len(history.attempts),
        rework_steps=len(history.rework),
        rework_seconds=round(rework_seconds, 6),
        skipped_steps=sum(step.skipped for step in steps),
        checkpoints=kept_checkpoints(run),
        best_checkpoint=chosen.get("checkpoint"),
        best_metric=chosen.get("metric"),
        best_value=chosen.get("value"),
        findings=len(history.events(Finding)),
        damaged_lines=history.ledger.damaged,
    )


def describe(summary: Summary) -> list[tuple[str, str]]:
    """The summary for people: (what, how much)."""
    of = f" of {summary.steps:,}" if summary.steps else ""
    passes = f", {summary.epochs:.2f} epochs" if summary.epochs is not None else ""
    window = f"mean of {plural(summary.loss_window, 'step')}"
    rows = [
        ("run", summary.name),
        ("status", f"{summary.status}: {summary.reason}"),
        ("created", summary.created),
        (
            "device",
            f"{summary.devices} x {summary.device}, {summary.precision}" if summary.device else NOTHING,
        ),
        ("parameters", parameters_text(summary.parameters, summary.trainable)),
        ("base model", base_text(summary.base)),
        ("steps", f"{summary.step:,}{of}{passes}"),
        ("tokens", number(summary.tokens)),
        ("training loss", f"{_from_to(summary.first_loss, summary.last_loss)} ({window})"),
        ("", sparkline(summary.loss_curve, _CURVE_POINTS)),
        ("validation loss", _from_to(summary.first_validation_loss, summary.last_validation_loss)),
        (
            "best validation",
            f"{number(summary.best_validation_loss)} at step {number(summary.best_validation_step)}",
        ),
        ("perplexity", number(summary.best_perplexity)),
        ("bits per byte", number(summary.best_bits_per_byte)),
        *((name.replace("_", " "), _change(summary, name)) for name in summary.figures_last),
        ("ratings", str(summary.ratings)),
        ("gap", f"{number(summary.gap)} (last validation loss less training loss)"),
        (
            "speed",
            f"{number(summary.tokens_per_second, 0)} tokens/s, MFU {percent(summary.mfu)} of the matrix rate",
        ),
        ("waiting for data", percent(summary.wait_ratio)),
        ("memory", f"{size(summary.peak_rss_bytes)}, GPU {size(summary.peak_gpu_memory_bytes)} at the peak"),
        ("time", f"{duration(summary.wall_seconds)}, of it {duration(summary.training_seconds)} in steps"),
        ("attempts", f"{summary.attempts}, {plural(summary.rework_steps, 'step')} done again"),
        ("skipped steps", number(summary.skipped_steps)),
        ("findings", number(summary.findings)),
        ("checkpoints", ", ".join(summary.checkpoints) or "none"),
        ("best checkpoint", best_text(summary)),
    ]
    if summary.damaged_lines:
        rows.append(("damaged lines", f"{numbers(summary.damaged_lines)} of the journal"))
    without = {"validation loss", "best validation", "perplexity", "bits per byte", "gap"}
    unknown = without if summary.last_validation_loss is None else {"bits per byte"} - {_has_bits(summary)}
    return [(what, text) for what, text in rows if text and what not in unknown]


def run_table(summaries: Sequence[Summary]) -> list[list[str]]:
    """One row a run, after a header."""
    header = ["run", "status", "step", "loss", "validation", "best", "tokens/s", "time", "created"]
    return [header] + [
        [
            summary.name, summary.status, f"{summary.step:,}/{number(summary.steps)}",
            number(summary.last_loss), number(summary.last_validation_loss),
            number(summary.best_validation_loss), number(summary.tokens_per_second, 0),
            duration(summary.wall_seconds), summary.created[:16].replace("T", " "),
        ]
        for summary in summaries
    ]  # fmt: skip


def best_text(summary: Summary) -> str:
    """Which checkpoint is the best, by what."""
    if summary.best_checkpoint is None:
        return "none"
    return f"{summary.best_checkpoint}, {summary.best_metric} {number(summary.best_value)}"


def base_text(base: dict[str, str] | None) -> str:
    """The pretrained model by name and digest; empty for none."""
    return f"{base['from']}, SHA-256 {base['sha256'][:16]}" if base else ""


def lowest(evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation with the lowest finite loss; the one before the first step is not of this
    run's making."""
    made = (evaluation for evaluation in evaluations if evaluation.step and math.isfinite(evaluation.loss))
    return min(made, key=lambda evaluation: evaluation.loss, default=None)


def kept_checkpoints(run: Run) -> list[str]:
    """Names of the checkpoints on disk, oldest first; one without a manifest does not exist."""
    return [path.name for path in list_checkpoints(run.checkpoints)]


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of some values, evenly spaced, the first and last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def _status(history: History) -> tuple[str, str]:
    """Status and reason: what the last attempt said of its end, else what lease and lock tell."""
    attempt = history.attempts[-1].number if history.attempts else 0
    for entry in reversed(history.ledger.entries):
        if (
            isinstance(entry.event, Control)
            and entry.attempt == attempt
            and entry.event.action in ("finish", "stop")
        ):
            return {"finish": "finished", "stop": "stopped"}[entry.event.action], one_line(entry.event.reason)
    state = history.run.state
    reasons = {
        "running": "it is going on",
        "killed": "its process ended without a word; the same command continues it",
        "failed": "an error ended it; log.txt has the last lines",
        "stopped": "it was stopped at once; the same command continues it",
    }
    return state, reasons.get(state, "the lease says so")


def _mean(windows: Iterable[Window], field: str) -> float | None:
    """Mean of a Resource field over time."""
    measured = [(getattr(w.resource, field), w.seconds) for w in windows if w.resource]
    known = [(value, seconds) for value, seconds in measured if value is not None and math.isfinite(value)]
    total = sum(seconds for _, seconds in known)
    return sum(value * seconds for value, seconds in known) / total if total else None


def _from_to(first: float | None, last: float | None) -> str:
    return NOTHING if first is None else f"{number(first)} → {number(last)}"


def _change(summary: Summary, name: str) -> str:
    """A figure beside the loss, from the first evaluation to the last, and at the best."""
    first, last = summary.figures_first.get(name), summary.figures_last.get(name)
    best = summary.figures_best.get(name, last)
    return _from_to(first, last) + (f" (best checkpoint {number(best)})" if best != last else "")


def _has_bits(summary: Summary) -> str:
    return "" if summary.best_bits_per_byte is None else "bits per byte"

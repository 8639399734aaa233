"""The course of a run as Markdown: phases of its schedule, and its figures over time."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from etude.records.events import Evaluation, Step
from etude.records.window import mean_loss, mean_steps
from etude.report.figures import spread
from etude.report.history import History, metric_value
from etude.report.markdown import prose, table
from etude.report.summary import Summary
from etude.report.told import told_of
from etude.report.wording import NOTHING, duration, metric_title, number, short
from etude.text import plural

_ROWS = 12
_FEW_EVALUATIONS = 6  # with fewer, the timeline has log windows too


def phases(history: History) -> Iterator[str]:
    """Parts of the schedule as far as they were run, with loss at start and end and time."""
    if not history.attempts or not history.steps:
        return
    schedule, steps = history.run.recipe.schedule, history.attempts[-1].steps
    decay = schedule.warmup_steps
    if schedule.kind == "wsd":
        decay = max(decay, steps - max(round(schedule.decay_ratio * steps), 1))
    elif schedule.kind == "constant":
        decay = steps
    shape = "linear" if schedule.kind == "wsd" else schedule.kind
    bounds = [
        ("warm-up", 0, schedule.warmup_steps),
        ("stable", schedule.warmup_steps, decay),
        (f"decay ({shape})", decay, steps),
    ]
    rows, every = [], mean_steps(history.run.recipe.records.log_every_steps, len(history.steps))
    for name, start, end in bounds:
        part = [step for step in history.steps if start < step.step <= end]
        if part:
            few = max(min(every, len(part) // 2), 1)
            cut = "" if part[-1].step == end else f" (to {end:,} planned)"
            rows.append((
                name, f"{part[0].step:,} to {part[-1].step:,}{cut}", _mean(part[:few]), _mean(part[-few:]),
                _seconds(part),
            ))  # fmt: skip
    yield table(("phase", "steps", "loss at start", "loss at end", "time in steps"), rows)
    ends = plural(every, "step").removeprefix("1 ")
    yield (
        f"Loss at start and end: mean over the targets of the first and last {ends} of the phase, or the "
        "halves of a shorter one."
    )


def timeline(history: History, summary: Summary) -> Iterator[str]:
    """Losses, the chosen metric and the learning rate at evenly spaced evaluations, the best among them."""
    shown: dict[int, Evaluation | None] = {}
    if sum(1 for each in history.evaluations if each.step) < _FEW_EVALUATIONS:
        shown |= {window.step: None for window in spread(history.windows, _ROWS)}
    best = [history.best] if history.best else []
    shown |= {each.step: each for each in [*spread(history.evaluations, _ROWS), *best]}
    if not shown:
        return
    metric = history.run.recipe.evaluate.metric
    has_metric = metric not in ("loss", "perplexity") and any(
        metric_value(each, metric) is not None for each in history.evaluations
    )
    chosen = {prose(metric_title(metric)): _metric} if has_metric else {}
    perplexity = {} if summary["last_perplexity"] is None else {"perplexity": _perplexity}
    columns = {"validation loss": _validation, **chosen, **perplexity}
    elapsed = _elapsed(history)
    count, numbers = summary["loss_window"], [step.step for step in history.steps]
    rows = []
    for step, evaluation in sorted(shown.items()):
        done = bisect_right(numbers, step)
        last = history.steps[max(done - count, 0) : done]
        star = " ★" if history.best and step == history.best.step else ""
        rows.append([
            number(step) + star,
            _mean(last) if last else NOTHING,
            *(read(history, evaluation) if evaluation else NOTHING for read in columns.values()),
            _rate(last[-1]) if last else NOTHING,
            duration(elapsed.get(step)),
        ])  # fmt: skip
    yield table(("step", "training loss", *columns, "learning rate", "elapsed"), rows)
    star = f"★ the best checkpoint by {prose(metric_title(metric))}. " if best else ""
    yield (
        f"{star}Training loss: mean over the targets of the {plural(count, 'step').removeprefix('1 ')} "
        "up to there. Elapsed: all attempts, rework included."
    )


def _mean(steps: Sequence[Step]) -> str:
    """Mean loss of the steps that changed weights, and how many did not."""
    lost = sum(step.skipped or not math.isfinite(step.loss) for step in steps)
    mean = mean_loss(steps)
    text = told_of(
        _loss(mean), "training_loss", mean, steps, unit="nats per target", statistic="mean over the targets"
    )
    return text + (f" ({lost:,} of {plural(len(steps), 'step')} skipped)" if lost else "")


def _seconds(steps: Sequence[Step]) -> str:
    total = sum(step.seconds for step in steps)
    return told_of(duration(total), "training_seconds", total, steps, unit="seconds", statistic="sum")


def _rate(step: Step) -> str:
    rate = step.learning_rate
    return told_of(f"{rate:.3g}", "learning_rate", rate, [step], unit="rate", statistic="of a step")


def _loss(value: float) -> str:
    return short(value, 4)


def _validation(history: History, evaluation: Evaluation) -> str:
    loss = evaluation.loss
    return told_of(
        _loss(loss), "validation_loss", loss, [evaluation], unit="nats per target", statistic="evaluation"
    )


def _perplexity(history: History, evaluation: Evaluation) -> str:
    value = evaluation.perplexity
    return told_of(short(value), "perplexity", value, [evaluation], unit="perplexity", statistic="evaluation")


def _metric(history: History, evaluation: Evaluation) -> str:
    metric = history.run.recipe.evaluate.metric
    value = metric_value(evaluation, metric)
    return told_of(short(value), metric, value, [evaluation], unit="of the metric", statistic="evaluation")


def _elapsed(history: History) -> dict[int, float]:
    """Seconds of the run at the last record of each step and evaluation."""
    return {
        entry.event.step: history.elapsed(entry)
        for entry in history.ledger.entries
        if isinstance(entry.event, Step | Evaluation)
    }

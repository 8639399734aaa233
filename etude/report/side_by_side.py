"""Figures of several runs side by side, each by the same statistic for all of them."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etude.records.events import Step
from etude.records.window import mean_loss, mean_steps
from etude.report.history import History
from etude.report.ranking import PER_TOKEN, Ranking
from etude.report.summary import Summary
from etude.report.wording import NOTHING, duration, metric_title, number, size


@dataclass(frozen=True)
class Result:
    """One figure of every run: the same statistic, computed the same way.

    name      key in JSON
    title     name in the table
    text      writes a value
    is_share  whether differences are shown as they are, not as a percentage
    compares  whether values of different runs may be held against each other
    """

    name: str
    title: str
    values: list[float | None]
    text: Callable[[Any], str] = number
    is_share: bool = False
    compares: bool = False

    def against(self, baseline: int) -> list[float | None]:
        """Values less that of the baseline; None where one of them is not known."""
        first = self.values[baseline]
        return [None if value is None or first is None else value - first for value in self.values]


def set_side_by_side(
    histories: list[History], summaries: list[Summary], ranking: Ranking, *, same_data: bool
) -> tuple[int, list[Result]]:
    """Figures that at least one run has, and the targets over which training losses are means.

    same_data: whether training losses compare.
    """
    targets, losses = _training_losses(histories, summaries, compares=same_data)
    results = [
        *_quality(histories, summaries, ranking),
        *losses,
        *_stability(histories, summaries),
        *_cost(histories, summaries),
    ]
    return targets, [result for result in results if any(value is not None for value in result.values)]


def _quality(histories: list[History], summaries: list[Summary], ranking: Ranking) -> list[Result]:
    """The metric in validation, final scores, and the other figures that differ."""
    compares, metrics = ranking.compares_validation, {summary["metric"] for summary in summaries}
    by_token = not ranking.same_tokenizer and not metrics.isdisjoint(PER_TOKEN)
    title = metric_title(metrics.pop()) if len(metrics) == 1 else "chosen metric"
    is_share = "loss" not in title and "perplexity" not in title
    titles = {"train": "training samples", "validation": "held-out samples"}
    results = [
        Result(f"{use}_samples", title, [_samples(history, use) for history in histories])
        for use, title in titles.items()
    ]
    fields = (("first", "first"), ("best", "best"), ("last", "last"))
    for which, when in fields:
        values = [summary[f"metric_{which}"] for summary in summaries]
        shown = compares and which == "best" and not by_token
        results.append(
            Result(f"metric_{which}", f"{title}, {when}", values, is_share=is_share, compares=shown)
        )
    results.append(_field("metric_best_step", "  best at step", summaries))
    results += _scores(histories, ranking)
    if title != metric_title("loss"):
        results.append(_field("best_validation_loss", "lowest validation loss", summaries))
    if len({history.data and history.data.tokenizer for history in histories}) > 1:
        bits = [summary["best_bits_per_byte"] for summary in summaries]
        results.append(Result("best_bits_per_byte", "lowest bits per byte", bits, compares=compares))
    if not any(history.scores for history in histories):  # which has them of rows that chose nothing
        results += _other_figures(summaries)
    results.append(_field("gap", "gap to training loss", summaries))
    ratings = [summary["ratings"].mean for summary in summaries]
    return [*results, Result("rating", "mean rating", ratings)]


def _scores(histories: list[History], ranking: Ranking) -> list[Result]:
    """Figures of the trained systems on rows that they were not trained on; the metric may be compared."""
    found = [
        {
            (scores.split, name): (value, name == scores.metric)
            for scores in history.scores
            for name, (value, *_) in scores.systems["after"].items()
        }
        for history in histories
    ]
    results = []
    for split, name in dict.fromkeys(key for mine in found for key in mine):
        each = [mine.get((split, name)) for mine in found]
        values = [value and value[0] for value in each]
        compares = all(value and value[1] for value in each) and values == ranking.values
        if compares or any(value != values[0] for value in values):
            key, title = f"{split} {name}".replace(" ", "_"), f"{split} {name.replace('_', ' ')}"
            results.append(Result(key, title, values, is_share=True, compares=compares))
    return results


def _other_figures(summaries: list[Summary]) -> list[Result]:
    """Figures of the best evaluation beside the metric, where they differ."""
    bests = [summary["figures_best"] for summary in summaries]
    names = dict.fromkeys(name for best in bests for name in best if "/" not in name)
    results = [
        Result(name, f"{name.replace('_', ' ')} at best", [best.get(name) for best in bests])
        for name in names
        if any(name != summary["metric"] for summary in summaries)
    ]
    return [each for each in results if any(value != each.values[0] for value in each.values)]


def _training_losses(
    histories: list[History], summaries: list[Summary], *, compares: bool
) -> tuple[int, list[Result]]:
    """Training losses over equal numbers of targets, and that number: at first, equally far, at last.

    The one at the end compares where all have seen as many targets, else the one before. They are means over
    at most half of what the shortest run has seen, so that its first loss is not its last.
    """
    seen = min(summary["tokens"] for summary in summaries)
    if not seen:
        return 0, []
    first = [h.steps[: mean_steps(len(h.windows[0].steps), len(h.steps))] for h in histories if h.steps]
    window = max(sum(step.targets for step in steps) for steps in first)
    window = min(window, max(seen // 2, 1))
    ends = [sum(step.targets for step in history.steps) for history in histories]
    spans = {"training_loss_first": ("training loss, first", [(0, window)] * len(ends))}
    is_longer = window < seen and len(set(ends)) > 1
    if is_longer:
        span = [(seen - window, seen)] * len(ends)
        spans["training_loss_equal"] = (f"  after {seen:,} targets", span)
    spans["training_loss_last"] = ("training loss, last", [(end - window, end) for end in ends])
    results = []
    for name, (title, span) in spans.items():
        values: list[float | None] = [_mean_between(h.steps, *ends) for h, ends in zip(histories, span)]
        results.append(Result(name, title, values, compares=compares and name == list(spans)[-1 - is_longer]))
    return window, results


def _mean_between(steps: list[Step], start: int, end: int) -> float:
    """Mean loss of the steps that have a target after number `start` and up to number `end`."""
    within, seen = [], 0
    for step in steps:
        if seen < end and seen + step.targets > start:
            within.append(step)
        seen += step.targets
    return mean_loss(within)


def _stability(histories: list[History], summaries: list[Summary]) -> list[Result]:
    """Gradient norms before clipping, skipped steps, and the number of problems."""
    norms = [[s.grad_norm for s in history.steps if math.isfinite(s.grad_norm)] for history in histories]
    middle = [statistics.median(each) if each else None for each in norms]
    skipped = [summary["skipped_steps"] or None for summary in summaries]
    return [
        Result("grad_norm_median", "gradient norm, median", middle),
        Result("grad_norm_max", "gradient norm, largest", [max(each, default=None) for each in norms]),
        Result("skipped_steps", "skipped steps", skipped),
        Result("problems", "problems", [len(summary["problems"]) for summary in summaries]),
    ]


def _cost(histories: list[History], summaries: list[Summary]) -> list[Result]:
    """Size, length, time and memory."""
    seconds = [sum(step.seconds for step in history.steps) or None for history in histories]
    samples = [sum(step.samples for step in history.steps) for history in histories]
    per_step = [
        (history.steps and statistics.median(s.seconds for s in history.steps)) or None
        for history in histories
    ]
    per_epoch = [
        history.attempts[-1].steps_per_epoch * total / len(history.steps)
        if total and history.attempts
        else None
        for history, total in zip(histories, seconds)
    ]
    rate: Callable[[Any], str] = lambda value: number(value, 0)  # noqa: E731
    return [
        _field("trainable", "trained parameters", summaries),
        _field("step", "steps", summaries),
        _field("epochs", "epochs", summaries, lambda value: number(value, 2)),
        _field("tokens", "targets", summaries),
        Result("training_seconds", "time in steps", seconds, _time, compares=True),
        Result("step_seconds", "time per step", per_step, _time),
        Result("epoch_seconds", "time per epoch", per_epoch, _time),
        Result("samples_per_second", "samples/s", [n / s if s else None for n, s in zip(samples, seconds)],
               lambda value: number(value, 2)),
        _field("tokens_per_second", "tokens/s", summaries, rate),
        _field("wall_seconds", "time in all", summaries, duration),
        _field("peak_rss_bytes", "peak memory", summaries, size),
        _field("peak_gpu_memory_bytes", "peak GPU memory", summaries, size),
    ]  # fmt: skip


def _field(name: str, title: str, summaries: list[Summary], text: Callable[[Any], str] = number) -> Result:
    return Result(name, title, [summary[name] for summary in summaries], text)


def _samples(history: History, use: str) -> int | None:
    """Samples of a use, of all tasks; None in a journal that does not tell."""
    parts = (history.data.summary if history.data else {}).items()
    counts = [part.get("samples") for key, part in parts if key.endswith(use) and isinstance(part, dict)]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known else None


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None else duration(seconds) if seconds >= 10 else f"{number(seconds, 3)} s"

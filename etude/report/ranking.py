"""The order of several runs by the figure that compares them, and a winner where the noise lets one be named.

Figures of validation compare only over the same held-out rows, by the same metric and, per token, with the
same tokenizer. The noise is known from several seeds, or from predictions that both runs kept of the same
rows; from single runs without such it is not.
"""

import math
import os
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from etude.recipe.metric import ChosenMetric
from etude.records.events import Evaluation, Scores
from etude.records.folder import as_argument
from etude.report.history import History
from etude.report.predictions import compare_predictions
from etude.report.seeds import Group
from etude.report.summary import Summary
from etude.report.verdict import constant_prediction, newest_scores
from etude.report.wording import metric_title, short
from etude.scores.intervals import Difference, difference_of_means
from etude.text import one_line, plural

BY_BYTES = "Their tokenizers differ, so bits per byte compare and losses per token do not."
PER_TOKEN = ("loss", "perplexity")
_BITS_PER_BYTE = "validation bits per byte"
_OF_LOSS = (*PER_TOKEN, "bits_per_byte")
_UNKNOWN_NOISE = "the noise is not known: runs with other seeds, or scores on the same rows, would tell it."
_CLOSE = 0.05  # share by which the bytes that were scored may differ: the end of an answer is not in all


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The standing of runs to each other.

    figure     the figure that compares them, None where none does: then they stand by time
    values     of every run, in the order given
    order      groups by their places, worst first
    obstacles  reasons why figures of validation do not compare
    winner     names of the best, several where they are not distinguishable; empty where nothing compares
    is_sure    whether the best is better than all others beyond the noise; None where the noise is not known
    sentences  the result in words
    commands   commands that tell what the runs alone do not
    same_tokenizer  whether losses per token compare
    """

    figure: str | None
    values: list[float | None]
    order: list[int]
    obstacles: list[str]
    winner: list[str]
    is_sure: bool | None
    sentences: list[str]
    commands: list[str]
    same_tokenizer: bool

    @property
    def compares_validation(self) -> bool:
        """True if figures of validation compare."""
        return not self.obstacles


@dataclass(frozen=True)
class _Figure:
    """A figure of every run, better where it is lower or higher; `scores` where it is one of those."""

    title: str
    lower_is_better: bool
    values: list[float | None]
    scores: list[Scores] | None = None


def rank(
    histories: Sequence[History],
    summaries: Sequence[Summary],
    groups: Sequence[Group],
    *,
    is_one_recipe: bool = False,
) -> Ranking:
    """Rank groups of runs that differ in their seed only; a run alone is a group of one.

    is_one_recipe: the runs differ in their seed only, so none is named best.
    """
    obstacles = list(_find_obstacles(histories, summaries))
    same_tokenizer = _same_tokenizer(histories)
    figure = _choose_figure(histories, summaries, obstacles)
    if figure is None:
        order = sorted(range(len(groups)), key=lambda place: _created(histories, groups[place]))
        commands = _commands(histories, obstacles)
        cure = "; to compare them, score all on the same file of rows" if commands else ""
        sentences = [*obstacles, f"No run is named best{cure}.", *_say_if_unfinished(summaries)]
        return Ranking(
            figure=None, values=[None] * len(histories), order=order, obstacles=obstacles, winner=[],
            is_sure=None, sentences=sentences, commands=commands, same_tokenizer=same_tokenizer,
        )  # fmt: skip
    means = [_mean([figure.values[place] for place in group.places]) for group in groups]
    sign = -1 if figure.lower_is_better else 1
    worth = [-math.inf if mean is None else sign * mean for mean in means]
    order = sorted(range(len(groups)), key=lambda place: (worth[place], _created(histories, groups[place])))
    names, is_sure, sentence = (
        _spread(figure) if is_one_recipe else _name_winner(histories, groups, figure, order)
    )
    is_by_bytes = not same_tokenizer and figure.title == _BITS_PER_BYTE
    caveats = [
        *([BY_BYTES] if is_by_bytes else []), *_say_if_unfinished(summaries),
        *_say_if_constant(histories, names),
        *_say_if_worse(histories, summaries, names),
    ]  # fmt: skip
    is_open = bool(obstacles) or (is_sure is None and bool(names))
    return Ranking(
        figure=figure.title, values=figure.values, order=order, obstacles=obstacles, winner=names,
        is_sure=is_sure, sentences=[sentence, *caveats, *obstacles],
        commands=_commands(histories, obstacles) if is_open else [], same_tokenizer=same_tokenizer,
    )  # fmt: skip


def _say_if_unfinished(summaries: Sequence[Summary]) -> list[str]:
    """A sentence on each run that is compared by a part of its training, since something ended it."""
    return [
        f"{one_line(summary['name'])} came to step {summary['step']:,} of {summary['steps']:,} only "
        f"({summary['status']}), so its figures are those of a part of its training."
        for summary in summaries
        if summary["status"] != "finished" and summary["step"] < (summary["steps"] or 0)
    ]


def _say_if_constant(histories: Sequence[History], names: Sequence[str]) -> list[str]:
    """A sentence on the winners that tell no row from another."""
    constant = [
        history.run.name
        for history in histories
        if history.run.name in names and any(map(constant_prediction, newest_scores(history)))
    ]
    verb = "predicts" if len(constant) == 1 else "predict"
    return [f"{_listed(constant)} {verb} one label for all rows."] if constant else []


def _say_if_worse(
    histories: Sequence[History], summaries: Sequence[Summary], names: Sequence[str]
) -> list[str]:
    """A sentence on the winners that are no better than their model was before training."""
    worse = []
    for history, summary in zip(histories, summaries):
        first, best = summary["metric_first"], summary["metric_best"]
        is_before = bool(history.evaluations) and not history.evaluations[0].step
        if summary["name"] in names and is_before and None not in (first, best):
            worse += [] if history.metric.gain(best, first) > 0 else [summary["name"]]
    return [f"{_listed(worse)} did not get better than before training."] if worse else []


def _find_obstacles(histories: Sequence[History], summaries: Sequence[Summary]) -> list[str]:
    """Reasons why figures of validation do not compare, as sentences."""
    kinds = list(dict.fromkeys(history.run.recipe.train.objective for history in histories))
    if len(kinds) > 1:
        return [f"The runs differ in their kind of training ({' and '.join(kinds)})."]
    metrics = list(dict.fromkeys(summary["metric"] for summary in summaries))
    if len(metrics) > 1:
        named = " and ".join(metric_title(metric) for metric in metrics)
        return [f"The runs chose their best checkpoints by different metrics ({named})."]
    if unmeasured := [summary["name"] for summary in summaries if summary["metric_best"] is None]:
        what = metric_title(metrics[0])
        return [f"{_listed(unmeasured)} {'has' if len(unmeasured) == 1 else 'have'} no {what} of its own."]
    sizes = [f"{_describe_held_out(history)} in {one_line(history.run.name)}" for history in histories]
    same = _same([_held_out(history) for history in histories])
    if same is False:
        return [
            f"The runs hold out different rows ({', '.join(sizes)}), so their validation figures do not "
            "compare."
        ]
    if same is None and not _same([history.data and history.data.fingerprint for history in histories]):
        return [
            "The runs have different data, and the records of older runs do not tell whether their held-out "
            f"rows ({_listed(sizes)}) are the same, so their validation figures do not compare."
        ]
    lasts = [history.evaluations[-1] for history in histories]
    if _same_tokenizer(histories):
        if len({last.targets for last in lasts}) > 1:
            counts = ", ".join(
                f"{last.targets:,} targets in {one_line(history.run.name)}"
                for history, last in zip(histories, lasts)
            )
            return [f"The runs score other parts of their held-out rows ({counts}), which do not compare."]
        return []
    sizes_scored = [_bytes_of(last) for last in lasts]
    if metrics[0] in _OF_LOSS and None in sizes_scored:
        return ["The runs have other tokenizers, so losses per token do not compare."]
    if metrics[0] in _OF_LOSS and max(sizes_scored) > (1 + _CLOSE) * min(sizes_scored):  # type: ignore[type-var,operator]
        return ["The runs have other tokenizers and score other parts of their rows, which do not compare."]
    return []


def _choose_figure(
    histories: Sequence[History], summaries: Sequence[Summary], obstacles: Sequence[str]
) -> _Figure | None:
    """Final scores on the same rows, or else the best value of the metric in validation."""
    scores = [_scores_of_metric(history, summary["metric"]) for history, summary in zip(histories, summaries)]
    known = [each for each in scores if each is not None]
    if len(known) == len(histories) and len({(s.split, s.metric, s.rows) for s in known}) == 1:
        same = _same([_held_out(history, known[0].split) for history in histories])
        if same or (same is None and _same([h.data and h.data.fingerprint for h in histories])):
            first = known[0]
            title = f"{metric_title(first.metric)} on {plural(first.rows, f'{first.split} row')}"
            values: list[float | None] = [each.systems["after"][first.metric][0] for each in known]
            lower = ChosenMetric.parse(first.metric).lower_is_better
            return _Figure(title, lower, values, known)
    if obstacles:
        return None
    metric = summaries[0]["metric"]
    if metric in PER_TOKEN and not _same_tokenizer(histories):
        values = [summary["best_bits_per_byte"] for summary in summaries]
        return _Figure(_BITS_PER_BYTE, True, values)
    title = f"validation {metric_title(metric).removeprefix('validation ')}"
    return _Figure(title, summaries[0]["lower_is_better"], [s["metric_best"] for s in summaries])


def _spread(figure: _Figure) -> tuple[list[str], bool | None, str]:
    known = [value for value in figure.values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return [], None, "The runs differ in their seed only."
    band = f"{short(statistics.fmean(known))} ± {short(statistics.stdev(known))}"
    if min(known) == max(known):
        return [], None, f"The runs differ in their seed only, and all have {figure.title} {short(known[0])}."
    ends = f"from {short(min(known))} to {short(max(known))}"
    return [], None, f"The runs differ in their seed only: {figure.title} {band}, {ends} over their seeds."


def _name_winner(
    histories: Sequence[History], groups: Sequence[Group], figure: _Figure, order: Sequence[int]
) -> tuple[list[str], bool | None, str]:
    """Names of the best, whether that is sure, and a sentence."""
    best, *others = (groups[place] for place in reversed(order))
    near, text = others[0], partial(_value_text, figure)
    if _mean([figure.values[place] for place in best.places]) is None:
        return [], None, f"No run has a finite {figure.title}."
    if len({history.run.path for history in histories}) == 1:
        return [], None, "All are the same run."
    found = [(other, _difference(histories, figure, best, other)) for other in others]
    if any(difference is None for _, difference in found):
        if text(best) == text(near):
            same = f"{best.name} and {near.name} have the same {figure.title}, {text(best)}"
            return [best.name, near.name], None, f"{same}; {_UNKNOWN_NOISE}"
        ahead = f"{figure.title} {text(best)} beside {text(near)} of {near.name}"
        return [best.name], None, f"{best.name} is ahead: {ahead}; {_UNKNOWN_NOISE}"
    basis = "seeds" if any(len(group.places) > 1 for group in groups) else "rows"
    behind = [(other.name, text(other), each) for other, each in found if each is not None]
    return describe_lead(figure.title, best.name, text(best), behind, basis)


def describe_lead(
    title: str, best: str, value: str, others: Sequence[tuple[str, str, Difference]], basis: str
) -> tuple[list[str], bool, str]:
    """Names of the best and of those that the noise does not tell from it, whether it is alone, a sentence.

    value: of the best. others: name, value, and how much higher the best is. basis: rows or seeds.
    """
    if all(gain.low == gain.high == 0 for _, _, gain in others):
        names = [best, *(name for name, *_ in others)]
        return (
            names,
            False,
            f"{_listed(names)} have the same {title}, {value}, on every resample of the {basis}.",
        )
    like = [each for each in others if each[2].is_noise]
    shown = ", ".join(apart(gain, f"{name} ({text})") for name, text, gain in like or others[:1])
    if like:
        names = [best, *(name for name, *_ in like)]
        what = f"{_listed(names)} are not distinguishable: {title} is {value} for {best}"
        return names, False, f"{what}, {shown}, within the noise of the {basis}."
    what = f"{best} is the best: its {title} is {value}, {shown}"
    return [best], True, f"{what}, beyond the noise of the {basis}."


def _difference(
    histories: Sequence[History], figure: _Figure, best: Group, other: Group
) -> Difference | None:
    """The difference of two groups: over seeds where there are several, else over rows; None if not known."""
    if len(best.places) > 1 or len(other.places) > 1:
        a, b = ([figure.values[place] for place in group.places] for group in (best, other))
        return difference_of_means([x for x in a if x is not None], [x for x in b if x is not None])
    if figure.scores is None:
        return None
    pair = [(histories[group.places[0]].run, figure.scores[group.places[0]]) for group in (best, other)]
    return compare_predictions(pair)


def _scores_of_metric(history: History, metric: str) -> Scores | None:
    """The final scores of the task that the metric is of."""
    task = metric.rpartition(":")[0]
    mine = [scores for scores in history.scores if scores.split.rpartition(" ")[0] == task]
    return mine[-1] if mine else None


def _held_out(history: History, split: str = "") -> dict[str, str] | None:
    """Hashes of the validation rows of all tasks, or of one split; None in older journals."""
    held_out = history.data.held_out if history.data else {}
    kept = {
        use: value
        for use, value in held_out.items()
        if (use == split if split else use.endswith("validation"))
    }
    return kept or None


def _describe_held_out(history: History) -> str:
    summary = history.data.summary if history.data else {}
    counts = [part.get("samples", 0) for use, part in summary.items() if use.endswith("validation") and part]
    return f"{sum(counts):,}"


def _same_tokenizer(histories: Sequence[History]) -> bool:
    """True if all have one tokenizer; older journals tell it by the fingerprint of their data."""
    known = _same([history.data and history.data.tokenizer for history in histories])
    return known if known is not None else True


def _same(values: Sequence[Any]) -> bool | None:
    """True if all are the same; None if one is not known."""
    return None if None in values else all(value == values[0] for value in values)


def _bytes_of(evaluation: Evaluation) -> float | None:
    """Bytes of the text that an evaluation scored, from its loss per token and per byte."""
    if not evaluation.bits_per_byte or not math.isfinite(evaluation.loss):
        return None
    return evaluation.loss * evaluation.targets / math.log(2) / evaluation.bits_per_byte


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _created(histories: Sequence[History], group: Group) -> str:
    return min(str(histories[place].run.info["created"]) for place in group.places)


def _value_text(figure: _Figure, group: Group) -> str:
    mean = _mean([figure.values[place] for place in group.places])
    return short(mean) + (f" over {len(group.places)} seeds" if len(group.places) > 1 else "")


def apart(gain: Difference, name: str) -> str:
    """The distance of the best from another, and its side in a word instead of a sign."""
    sign, side = (1, "above") if gain.value >= 0 else (-1, "below")
    low, high = sorted([sign * gain.low, sign * gain.high])
    return f"{short(abs(gain.value))} [{low:.3g}, {high:.3g}] {side} {name}"


def _commands(histories: Sequence[History], obstacles: Sequence[str]) -> list[str]:
    """The commands that make runs of one kind comparable, or else measure the noise."""
    if len({history.run.recipe.train.objective for history in histories}) > 1:
        return []
    paths = [history.run.path for history in histories]
    folder = paths[0].parent
    is_shared = all(path.parent == folder for path in paths) and as_argument(paths[0]) != paths[0].name
    names = " ".join(shlex.quote(path.name) if is_shared else as_argument(path) for path in paths)
    runs = f" --runs {shlex.quote(str(folder))}" if is_shared else ""
    evaluate = f"etude evaluate {names} --on {_held_out_file(histories)}{runs}"
    return [evaluate] if obstacles else ["etude train RECIPE --repeat 3", evaluate]


def _held_out_file(histories: Sequence[History]) -> str:
    """The file that all runs hold out, if there is one."""
    held_out = [history.run.recipe.data.validation for history in histories]
    paths = {
        (source.path or "") if len(each) == 1 else ""
        for each in held_out
        if isinstance(each, list)
        for source in each
    }
    is_one = all(isinstance(each, list) for each in held_out) and len(paths) == 1
    return shlex.quote(os.path.relpath(paths.pop())) if is_one and "" not in paths else "FILE"


def _listed(names: Sequence[str]) -> str:
    clean = [one_line(name) for name in names]
    return clean[0] if len(clean) == 1 else f"{', '.join(clean[:-1])} and {clean[-1]}"

"""Results of a run as Markdown: its figures before and after, and its scores beside those of baselines."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from etude.records.events import Evaluation, Scores
from etude.report.history import History, figures_of, metric_value
from etude.report.markdown import prose, table
from etude.report.summary import Summary
from etude.report.told import told_of
from etude.report.wording import NOTHING, is_sure, metric_title, number, short, with_interval
from etude.scores.answers import BLEU_SETTINGS
from etude.scores.order import sort_key
from etude.text import plural

_SYSTEMS = {"after": "after training", "before": "before training"}
_UNITS = {"loss": "nats per target", "perplexity": "perplexity", "bits_per_byte": "bits per byte"}
_OF_LOSS = ("loss", "bits_per_byte", "perplexity")
_MEANINGS = {
    "stop_rate": "stop rate is the share of answers that end by themselves",
    "repetition": "repetition the share of an answer's 4-grams that stood in it before, of words and marks, "
    "and of characters in a word or gap of more than 32",
    "trailing_text": "trailing text a new turn, or words after the code, where the reference has none",
    "distinct_2": "distinct 2 the share of different pairs of such parts",
    "format_kept": "format kept and parse rate are over references that have a fence or are Python",
}


def before_after(history: History, summary: Summary) -> Iterator[str]:
    """Tables of the first, best and last evaluation: the chosen metric first, then other figures by label."""
    moments = _moments(history)
    if not moments:
        return
    metric = history.run.recipe.evaluate.metric
    figures = figures_at(history, summary, [evaluation for _, evaluation in moments])
    columns = [f"{' and '.join(names)}, step {number(evaluation.step)}" for names, evaluation in moments]
    # A change is one to the best, unless that is the first or there is none.
    bests = [index for index, (names, _) in enumerate(moments) if index and "best" in names]
    end = bests[0] if bests else len(moments) - 1
    change = [f"change to {' and '.join(moments[end][0])}"] if end else []
    whole = {name: values for name, values in figures.items() if "/" not in name}
    same = {name: values[0] for name, values in whole.items() if end and _is_same(values) and name != metric}
    rows = [
        [
            f"**{prose(_words(name))}** (chosen)" if name == metric else prose(_words(name)),
            *(_told(name, value, evaluation) for value, (_, evaluation) in zip(values, moments)),
            *_changes(values, end),
        ]
        for name, values in whole.items()
        if name not in same
    ]
    yield table(("validation", *columns, *change), rows)
    if same:
        listed = ", ".join(f"{prose(_words(name))} {short(value)}" for name, value in same.items())
        yield f"The same at each: {listed}."
    yield from _by_part(history, figures, moments, end)
    if history.run.recipe.evaluate.answers and (how := _how(history, whole)):
        yield how


def _by_part(
    history: History,
    figures: dict[str, list[float | None]],
    moments: Sequence[tuple[list[str], Evaluation]],
    end: int,
) -> Iterator[str]:
    """Tables with a row for each label, capability or range of positions: figures at first and at `end`."""
    kinds = {name: part.kind for name, part in history.run.recipe.by_task().items()}
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for name, values in figures.items():
        figure, slash, part = name.partition("/")
        if slash:
            task = figure.rpartition(":")[0]
            what = "label" if task in kinds and kinds[task].has_labels else "capability"
            what = "position" if figure.rpartition(":")[2] == "loss" else what
            first, last = short(values[0]), short(values[end])
            cell = f"{first} → {last}" if end and first != last else last
            tables.setdefault(what, {}).setdefault(part, {})[figure] = cell
    for what, parts in tables.items():
        names = list(dict.fromkeys(figure for cells in parts.values() for figure in cells))
        rows = [
            [prose(part), *(parts[part].get(name, NOTHING) for name in names)]
            for part in sorted(parts, key=sort_key)
        ]
        ends = f"{moments[0][0][0]} → {' and '.join(moments[end][0])}" if end else moments[0][0][0]
        yield f"By {what}, {ends}:\n\n{table((what, *(prose(_words(name)) for name in names)), rows)}"


def figures_at(
    history: History, summary: Summary, moments: Sequence[Evaluation]
) -> dict[str, list[float | None]]:
    """Values of each figure at some moments by its name: the chosen metric first, no figure twice."""
    names = [each for each in _OF_LOSS if each != "perplexity" or summary["last_perplexity"] is not None]
    others = [name for each in history.evaluations for name in figures_of(each)]
    every = dict.fromkeys([history.run.recipe.evaluate.metric, *names, *others])
    values = {name: [metric_value(each, name) for each in moments] for name in every}
    known = {name: each for name, each in values.items() if any(value is not None for value in each)}
    return {
        name: each for name, each in known.items() if known.get(name.removesuffix("_macro")) != each
        or not name.endswith("_macro")
    }  # fmt: skip


def _told(name: str, value: float | None, evaluation: Evaluation) -> str:
    unit = _UNITS.get(name, "of the metric")
    return told_of(figure_text(name, value), name, value, [evaluation], unit=unit, statistic="evaluation")


def figure_text(name: str, value: float | None) -> str:
    """A figure of an evaluation: those of the loss to four significant digits, others to three."""
    return short(value, 4 if name in _OF_LOSS else 3)


def final_scores(history: History) -> Iterator[str]:
    """Scores of a run on rows it was not trained on: every system with its interval, and what that shows."""
    for scores in history.scores:
        yield from describe_scores(scores, is_told=True)


def describe_scores(scores: Scores, *, is_told: bool = False) -> list[str]:
    """Scores as Markdown: systems, gains, confusions, capabilities, thresholds and notes.

    is_told: figures have marks for `take_marks`
    """
    figures = sorted(next(iter(scores.systems.values())), key=lambda name: name != scores.metric)

    def mark(text: str, system: str, figure: str) -> str:
        value, statistic = scores.systems[system][figure][0], f"{system}, {plural(scores.rows, 'row')}"
        return (
            told_of(text, figure, value, [scores], unit="of the metric", statistic=statistic)
            if is_told
            else text
        )

    rows = [
        [
            prose(_SYSTEMS.get(name, name)),
            *(mark(with_interval(*values[figure], rows=scores.rows), name, figure) for figure in figures),
            _gain(scores, name),
        ]
        for name, values in scores.systems.items()
    ]
    count = plural(scores.rows, f"{prose(scores.split)} row")
    first = prose(_SYSTEMS.get(next(iter(scores.systems)), next(iter(scores.systems))))
    header = ("system", *(prose(_words(name)) for name in figures))
    ahead = f"{prose(metric_title(scores.metric))} difference, {first} minus this system"
    has_gains = any(name in scores.gains for name in scores.systems)
    shown = table((*header, ahead), rows) if has_gains else table(header, [row[:-1] for row in rows])
    parts = [f"On {count}, with bootstrap intervals of 95 %:\n\n{shown}"]
    if not has_gains and len(scores.systems) > 1:
        parts.append("The record has no difference between systems, so whether one is better is not known.")
    if scores.confusion:
        cells = [[prose(name), *map(number, row)] for name, row in zip(scores.labels, scores.confusion)]
        parts.append(table(("actual (rows), predicted (columns)", *map(prose, scores.labels)), cells))
    if scores.capabilities:
        systems = list(scores.systems)
        kinds = [
            [prose(kind), number(int(values["rows"])), *(_of_rows(values, name) for name in systems)]
            for kind, values in scores.capabilities.items()
        ]
        columns = [prose(f"{metric_title(scores.metric)} {_SYSTEMS.get(name, name)}") for name in systems]
        parts.append(table(("capability", "rows", *columns), kinds))
    if scores.thresholds:
        chosen = [f"{prose(name)} {value:.3f}" for name, value in zip(scores.labels, scores.thresholds)]
        parts.append(f"Decision thresholds: {', '.join(chosen)}.")
    return [*parts, *(f"Note: {prose(note)}." for note in scores.notes)]


def _gain(scores: Scores, name: str) -> str:
    """The gain over a system, and a word where the rows do not show who is better."""
    if name not in scores.gains:
        return NOTHING
    gain = scores.gains[name]
    plus = "+" if gain[0] > 0 else ""
    noise = "" if is_sure(gain) else ", within the noise" if any(gain) else ", the same"
    return f"{plus}{with_interval(*gain, rows=scores.rows)}{noise}"


def _of_rows(values: dict[str, float], name: str) -> str:
    """A figure of few rows to the decimals that they can show."""
    return with_interval(values[name], math.nan, math.nan, rows=int(values["rows"]))


def _moments(history: History) -> list[tuple[list[str], Evaluation]]:
    """The first, best and last evaluation with these names; one may have several."""
    if not history.evaluations:
        return []
    first, last = history.evaluations[0], history.evaluations[-1]
    named = {"first" if first.step else "before training": first, "best": history.best, "last": last}
    moments: dict[int, tuple[list[str], Evaluation]] = {}
    for name, evaluation in named.items():
        if evaluation is not None:
            moments.setdefault(evaluation.step, ([], evaluation))[0].append(name)
    return list(moments.values())


def _is_same(values: Sequence[float | None]) -> bool:
    return values[0] is not None and all(value == values[0] for value in values)


def _changes(values: Sequence[float | None], end: int) -> list[str]:
    """The signed change from the first value to that at `end`, for a table that has the column."""
    if not end:
        return []
    first, last = values[0], values[end]
    if first is None or last is None or not math.isfinite(first) or not math.isfinite(last):
        return [NOTHING]
    if first == last:
        return ["same"]
    return [f"{'-' if last < first else '+'}{short(abs(last - first))}"]


def _how(history: History, figures: dict[str, Any]) -> str:
    """The figures of answers in words, those that are shown."""
    meanings = [text for name, text in _MEANINGS.items() if name in figures]
    if "bleu" in figures:
        versions = (
            attempt.environment.get("versions", {}).get("sacrebleu") for attempt in reversed(history.attempts)
        )
        version = next(filter(None, versions), "")
        by = f"by sacrebleu {prose(version)} ({prose(BLEU_SETTINGS)})".replace("  ", " ")
        meanings.append(f"BLEU and chrF go from 0 to 100, BLEU {by}")
    evaluate = history.run.recipe.evaluate
    asked = plural(evaluate.answers, f"validation {history.run.recipe.kind.prompt}")
    room = plural(evaluate.answer_tokens, "token")
    told = f": {'; '.join(meanings)}" if meanings else ""
    return f"Greedy answers to {asked} at most, of up to {room}{told}."


def _words(name: str) -> str:
    return name.replace("_", " ")

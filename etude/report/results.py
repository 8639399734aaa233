"""Results of a run as Markdown: before and after, figures over time, final scores, and texts."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etude.records.events import Evaluation, Generation, Scores
from etude.report.figures import spread
from etude.report.history import History, figures_of
from etude.report.markdown import code, fence, prose, table
from etude.report.wording import NOTHING, number
from etude.scores.answers import BLEU_SETTINGS
from etude.scores.intervals import Difference
from etude.scores.order import sort_key
from etude.text import plural

_ROWS = 16
_PROMPTS, _MOMENTS = 8, 4


def before_after(history: History) -> list[str]:
    """Tables of the first, best and last evaluation: all figures, then those of each capability."""
    moments = _moments(history)
    if not moments:
        return []
    shown = [evaluation for _, evaluation in moments]
    columns = [f"{' and '.join(names)}, step {number(evaluation.step)}" for names, evaluation in moments]
    names = list(dict.fromkeys(name for evaluation in history.evaluations for name in figures_of(evaluation)))
    figures: dict[str, list[Any]] = {
        "loss": [evaluation.loss for evaluation in shown],
        "perplexity": [evaluation.perplexity for evaluation in shown],
        "bits per byte": [evaluation.bits_per_byte for evaluation in shown],
        **{name: [figures_of(evaluation).get(name) for evaluation in shown] for name in names},
        "targets": [evaluation.targets for evaluation in shown],
    }
    # A change is one to the best, unless that is the first or there is none.
    bests = [index for index, (names, _) in enumerate(moments) if index and "best" in names]
    end = bests[0] if bests else len(moments) - 1
    change = [f"change to {' and '.join(moments[end][0])}"] if end else []
    cells = {name: [*map(number, values), *_changes(values, end)] for name, values in figures.items()}
    whole = [
        [prose(_words(name)), *cells[name]]
        for name, values in figures.items()
        if "/" not in name and any(value is not None for value in values)
    ]
    parts = [
        [prose(part), prose(_words(figure)), *cells[f"{figure}/{part}"]]
        for figure, _, part in sorted((name.partition("/") for name in figures if "/" in name), key=_place)
    ]
    tables = [table(("validation", *columns, *change), whole)]
    return [*tables, table(("capability", "figure", *columns, *change), parts)] if parts else tables


def _place(name: tuple[str, str, str]) -> tuple[Any, str]:
    """The order of figures of labels and capabilities: by these, numbers by their value."""
    figure, _, part = name
    return sort_key(part), figure


def final_scores(history: History) -> list[str]:
    """Scores of a run on rows it was not trained on: every system with its interval, and what that shows."""
    return [part for scores in history.scores for part in describe_scores(scores)]


def describe_scores(scores: Scores) -> list[str]:
    """Scores as Markdown: systems, gains, confusions, capabilities, thresholds and notes."""
    figures = list(next(iter(scores.systems.values())))
    rows = [
        [prose(name), *(_with_interval(values[figure]) for figure in figures)]
        for name, values in scores.systems.items()
    ]
    count = plural(scores.rows, f"{prose(scores.split)} row")
    title = f"On {count}, with bootstrap intervals of 95 %:"
    gains = [
        f"- {prose(scores.metric)} against {prose(other)}: {_with_interval(gain, signed=True)}"
        + (", inside the noise" if Difference(*gain).is_noise else "")
        for other, gain in scores.gains.items()
    ]
    parts = [f"{title}\n\n{table(('system', *map(prose, figures)), rows)}", "\n".join(gains)]
    if scores.confusion:
        cells = [[prose(name), *map(number, row)] for name, row in zip(scores.labels, scores.confusion)]
        heading = ("is (rows), was said (columns)", *map(prose, scores.labels))
        parts.append(table(heading, cells))
    if scores.capabilities:
        systems = list(scores.systems)
        kinds = [
            [prose(kind), number(int(values["rows"])), *(number(values[name]) for name in systems)]
            for kind, values in scores.capabilities.items()
        ]
        columns = [f"{prose(scores.metric)} {prose(name)}" for name in systems]
        parts.append(table(("capability", "rows", *columns), kinds))
    if scores.thresholds:
        chosen = [f"{prose(name)} {value:.3f}" for name, value in zip(scores.labels, scores.thresholds)]
        parts.append(f"Said from these probabilities on: {', '.join(chosen)}.")
    return [*parts, *(f"Note: {prose(note)}." for note in scores.notes)]


def _with_interval(values: Sequence[float], *, signed: bool = False) -> str:
    value, low, high = values
    plus = "+" if signed and value > 0 else ""
    return f"{plus}{number(value)} [{number(low)}, {number(high)}]"


def figures_over_time(history: History) -> str | None:
    """A row an evaluation with the figures of its answers, and how they are counted."""
    scored = [evaluation for evaluation in history.evaluations if figures_of(evaluation)]
    every = dict.fromkeys(name for evaluation in scored for name in figures_of(evaluation))
    names = [name for name in every if "/" not in name]
    if not names:
        return None
    rows = [
        [number(evaluation.step), *(number(figures_of(evaluation).get(name)) for name in names)]
        for evaluation in spread(scored, _ROWS)
    ]
    text = table(("step", *(prose(_words(name)) for name in names)), rows)
    return f"{text}\n\n{_how(history)}" if history.run.recipe.evaluate.answers else text


def text_timeline(history: History) -> Iterator[dict[str, Any]]:
    """The first prompts, each with its texts of some moments: the first, the best and the last among them."""
    best = history.best.step if history.best else None
    for (prompt, reference), texts in list(_by_prompt(history).items())[:_PROMPTS]:
        kept = [*spread(texts, _MOMENTS), *(text for text in texts if text.step == best)]
        moments = {text.step: text for text in sorted(kept, key=lambda text: text.step)}
        yield {
            "prompt": fence(prompt),
            "reference": None if reference is None else fence(reference),
            "moments": [{"when": _when(t, best), "text": fence(t.text)} for t in moments.values()],
        }


def prompts_left_out(history: History) -> int:
    """The number of prompts that `text_timeline` leaves to the journal."""
    return max(len(_by_prompt(history)) - _PROMPTS, 0)


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


def _by_prompt(history: History) -> dict[tuple[str, str | None], list[Generation]]:
    """Texts by prompt and reference, since equal instructions may have different ones."""
    texts: dict[tuple[str, str | None], list[Generation]] = {}
    for generation in history.generations:
        texts.setdefault((generation.prompt, generation.reference), []).append(generation)
    return texts


def _when(generation: Generation, best: int | None) -> str:
    moment = f"After step {number(generation.step)}" if generation.step else "Before training"
    mark = " (best)" if generation.step == best else ""
    most = generation.settings.get("max_tokens")
    cut = f", cut off after {plural(most, 'token')}" if generation.stopped is False and most else ""
    return f"{moment}{mark}{', ended by itself' if generation.stopped else cut}:"


def _changes(values: Sequence[Any], end: int) -> list[str]:
    """The signed change from the first value to that at `end`, for a table that has the column."""
    if not end:
        return []
    first, last = values[0], values[end]
    known = all(isinstance(value, float) and math.isfinite(value) for value in (first, last))
    if known and first == last:
        return ["same"]
    return [f"{'-' if last < first else '+'}{number(abs(last - first))}" if known else NOTHING]


def _how(history: History) -> str:
    versions: Iterable[str] = (
        attempt.environment.get("versions", {}).get("sacrebleu") for attempt in reversed(history.attempts)
    )
    version = next(filter(None, versions), None)
    evaluate = history.run.recipe.evaluate
    return (
        f"Greedy answers to {plural(evaluate.answers, 'validation instruction')} at most, of up to "
        f"{plural(evaluate.answer_tokens, 'token')}. Shares are from 0 to 1, BLEU from 0 to 100 by sacrebleu"
        f"{f' {prose(version)}' if version else ''} ({code(BLEU_SETTINGS)}). Repetition is the share of "
        "4-grams of words that were there before, distinct 2 that of different 2-grams; trailing text is a "
        "new turn, or words after the code, where the reference has none; format kept and parse rate are "
        "over the references that have a fence or are Python."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")

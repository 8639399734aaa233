"""A run as HTML in a cell of a notebook: a line of state, figures, a chart of its losses, texts, findings."""

import math
from collections.abc import Iterable, Sequence
from html import escape

from etude.records.ending import Ending
from etude.records.events import Evaluation, Finding, Generation
from etude.records.store import Run
from etude.report.charts import envelope
from etude.report.history import read_history
from etude.report.progress import Progress
from etude.report.summary import describe, summarize
from etude.report.wording import metric_title, number, short
from etude.text import one_line, printable

_WIDTH, _HEIGHT, _MARGIN = 640, 180, 8  # of the chart, in pixels
_TRAINING, _VALIDATION, _BEST = "#4c8fcc", "#d95f02", "#b30000"  # readable on white and on black
_MOST_TEXTS, _MOST_FINDINGS = 3, 5
_LONGEST = 400  # characters of a text
_ROWS = 14  # of the figures


def live_html(progress: Progress, note: str = "") -> str:
    """The picture of a run that goes on: one line, its losses so far, and what a person should know.

    note: a last line, as the answer to an interrupt.
    """
    parts = [_line(state_words(progress)), _chart(progress.losses, progress.evaluations, progress.best)]
    if finding := progress.finding:
        parts.append(_findings([finding]))
    return _frame([*parts, _line(note) if note else ""])


def state_words(progress: Progress) -> str:
    """One line about a run that goes on: step, losses, speed and the time left, or how it ended."""
    step, steps, best = progress.step, progress.steps, progress.best
    words = [printable(progress.name), f"step {step:,} of {steps:,}"]
    if progress.last:
        words.append(f"loss {short(progress.training_loss)}")
    if evaluation := progress.evaluation:
        words.append(f"validation loss {short(evaluation.loss)}")
    if best:
        metric = metric_title(progress.recipe.evaluate.metric)
        words.append(f"best {metric} {number(progress.value(best))} at step {best.step:,}")
    if progress.tokens_per_second:
        words.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    ending = Ending.of(progress.control) if progress.control else None
    rest = f"{ending.state}: {progress.control.reason}" if ending and progress.control else ""
    return "   ".join(filter(None, [*words, one_line(rest) or progress.rest]))


def run_html(run: Run) -> str:
    """A run in any state, for a reader: figures, losses, newest texts and findings.

    Raises: InputError if the folder is damaged.
    """
    history = read_history(run)
    rows = [row for row in describe(summarize(run, history)) if row[1]][:_ROWS]
    findings = [each for each in history.events(Finding) if each.severity != "info"]
    texts = [each for each in history.generations if each.step == history.generations[-1].step]
    losses = [(step.step, step.loss) for step in history.steps]
    return _frame(
        [
            _table(rows),
            _chart(losses, history.evaluations, history.best),
            _texts(texts[:_MOST_TEXTS]),
            _findings(sorted(findings, key=lambda each: each.severity != "error")[:_MOST_FINDINGS]),
        ]
    )


def _frame(parts: Iterable[str]) -> str:
    return f'<div style="font-size:13px;line-height:1.5">{"".join(filter(None, parts))}</div>'


def _line(text: str) -> str:
    return f'<div style="white-space:pre-wrap">{escape(text)}</div>'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><td style="text-align:left;opacity:.7">{escape(printable(name))}</td>'
        f'<td style="text-align:left">{escape(one_line(text, _LONGEST))}</td></tr>'
        for name, text in rows
    )
    return f"<table>{cells}</table>"


def _texts(samples: Sequence[Generation]) -> str:
    return "".join(
        f"<div style='opacity:.7'>after step {each.step:,}: {escape(one_line(each.prompt, 100))}</div>"
        f"<pre style='margin:0 0 6px 12px'>{escape(_cut(each.text))}</pre>"
        for each in samples
    )


def _cut(text: str) -> str:
    """A text of the model with its lines, without what would draw elsewhere than in its place."""
    kept = "\n".join(printable(line) for line in text[:_LONGEST].splitlines())
    return kept + (" …" if len(text) > _LONGEST else "")


def _findings(findings: Sequence[Finding]) -> str:
    return "".join(
        f'<div style="color:{_BEST if each.severity == "error" else _VALIDATION}">step {each.step:,}  '
        f"{escape(one_line(f'{each.what}: {each.evidence}; {each.advice}', _LONGEST))}</div>"
        for each in findings
    )


def _chart(
    losses: Sequence[tuple[int, float]], evaluations: Sequence[Evaluation], best: Evaluation | None
) -> str:
    """Losses of training and validation over steps as an inline SVG; empty before there are two of them."""
    training = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    scored = [(each.step, each.loss) for each in evaluations if math.isfinite(each.loss)]
    if len(training) < 2:
        return ""
    xs, ys = envelope([step for step, _ in training], [loss for _, loss in training], 2 * _WIDTH)
    first, last = xs[0], max([xs[-1], *(step for step, _ in scored)])
    # Single spikes may leave the chart; the level of the curve must stay readable.
    levels = sorted(ys)[: max(len(ys) * 99 // 100, 2)] + [loss for _, loss in scored]
    low, high = min(levels), max(levels)

    def points(pairs: Iterable[tuple[float, float]]) -> str:
        across, down = (_WIDTH - 2 * _MARGIN) / ((last - first) or 1), (_HEIGHT - 24) / ((high - low) or 1)
        return " ".join(
            f"{_MARGIN + (x - first) * across:.1f},{max(12 + (high - y) * down, 0):.1f}"
            for x, y in pairs
            if x >= first
        )

    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="3" fill="{_VALIDATION}"/>'
        for x, y in (pair.split(",") for pair in points(scored).split())
    )
    if best and math.isfinite(best.loss) and (place := points([(best.step, best.loss)])):
        x, y = place.split(",")
        dots += f'<circle cx="{x}" cy="{y}" r="5" fill="none" stroke="{_BEST}" stroke-width="2"/>'
    legend = f"training loss {short(high)} to {short(low)}" + (", dots: validation" if scored else "")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(legend)}" '
        'style="max-width:100%;overflow:hidden">'
        f'<polyline points="{points(zip(xs, ys))}" fill="none" stroke="{_TRAINING}" stroke-width="1.2"/>'
        f'<polyline points="{points(scored)}" fill="none" stroke="{_VALIDATION}" stroke-width="1.5"/>{dots}'
        f'<text x="4" y="{_HEIGHT - 2}" font-size="11" fill="currentColor">{escape(legend)}, '
        f"steps {first:,.0f} to {last:,.0f}</text></svg>"
    )

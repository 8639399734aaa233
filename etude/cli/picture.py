"""The picture of a run that goes on, for a terminal of any size: the figures, the loss, what it says."""

import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etude.control.signals import stopping
from etude.records.ending import Ending
from etude.records.events import Forecast, Generation
from etude.report.braille import Mark, braille_curve
from etude.report.progress import Progress
from etude.report.wording import NOTHING, duration, metric_title, number, percent, short, size
from etude.text import clean, one_line, printable, rough_duration, rough_size

if TYPE_CHECKING:
    from rich.console import Console

_FIGURES_WIDTH = 34
_MOST_CHART_LINES, _WIDEST_CHART = 14, 80
_LONG_PROMPT, _MOST_TEXT_LINES = 60, 6
_VALIDATION, _BEST = "●", "◆"


def draw(progress: Progress, console: "Console") -> Group:
    """Draw header, bar, figures beside the losses, the newest texts, and what a person should know.

    It has a line less than the console, and the texts get what the rest leaves them.
    """
    width, height = console.width, console.height - 1
    notes = list(_notes(progress, width))
    lines = min(max(height // 2, 4), _MOST_CHART_LINES + 2)
    body = Table.grid(padding=(0, 2))
    body.add_column(width=_FIGURES_WIDTH)
    body.add_column()
    body.add_row(_figures(progress, lines), _chart(progress, width - _FIGURES_WIDTH - 4, lines, console))
    room = max(height - lines - len(notes) - 4, 0)
    texts = list(_texts(progress, width - 1, room))
    return Group(
        _header(progress), _bar(progress, width), Text(), body, *([Text()] if texts else []), *texts, *notes
    )


def _header(progress: Progress) -> Text:
    attempt = progress.attempt
    if attempt is None:
        return Text(printable(progress.name), style="bold")
    again = f"  attempt {attempt.number} from step {attempt.from_step:,}" if attempt.number > 1 else ""
    devices = f"{attempt.devices} x " if attempt.devices > 1 else ""
    count = f"{_count(attempt.parameters['total'])} parameters"
    rest = printable(f"  {count}  {devices}{attempt.device}, {attempt.precision}{again}")
    return Text.assemble((printable(progress.name), "bold"), rest, no_wrap=True, overflow="ellipsis")


def _bar(progress: Progress, width: int) -> Table:
    step, steps = progress.step, progress.steps
    share = f"{100 * step / steps:.0f} %" if steps else ""
    rest = progress.rest if step < steps or not steps else "saving and scoring"
    if progress.control and (ending := Ending.of(progress.control)):
        rest = ending.state
    words = "  ".join(filter(None, [share, f"{step:,} / {steps:,}", rest]))
    row = Table.grid(padding=(0, 2))
    space = max(width - 4 - max(len(words), 42), 10)
    row.add_row(ProgressBar(total=max(steps, 1), completed=step, width=space), Text(words, no_wrap=True))
    return row


def _figures(progress: Progress, most: int) -> Table:
    """The figures, the ones of most use first."""
    last, resource, evaluation, best = progress.last, progress.resource, progress.evaluation, progress.best
    metric = progress.recipe.evaluate.metric
    rows = [
        ("training loss", number(progress.training_loss if last else None)),
        ("validation loss", number(evaluation and evaluation.loss)),
    ]
    if metric != "loss":
        rows.append((metric_title(metric), number(progress.value(evaluation))))
    gpu_memory = resource.gpu_memory_bytes if resource else None
    memory = gpu_memory if resource is None or gpu_memory is not None else resource.rss_bytes
    rows.append(("best", f"{number(progress.value(best))} @ {best.step:,}" if best else NOTHING))
    if evaluation and not progress.evaluations[0].step:
        rows.append(("before training", number(progress.value(progress.evaluations[0]))))
    rows += [
        ("gap", number(progress.gap)),
        ("elapsed", duration(round(progress.elapsed))),
        *([("forecast", _expected(progress.forecast))] if progress.forecast else []),
        ("learning rate", f"{last.learning_rate:.3g}" if last else NOTHING),
        ("gradient norm", number(last and last.grad_norm, 3)),
        ("tokens/s", number(progress.tokens_per_second, 0)),
        ("memory" if gpu_memory is None else "GPU memory", size(memory)),
        ("MFU", percent(resource.mfu if resource else None)),
        ("data wait", percent(resource.wait_ratio if resource else None)),
    ]
    if evaluation and evaluation.bits_per_byte is not None and metric != "bits_per_byte":
        rows.insert(-2, ("bits per byte", number(evaluation.bits_per_byte)))
    grid = Table.grid(padding=(0, 2))
    for what, text in rows[:most]:
        grid.add_row(Text(printable(what)[:16], style="dim"), Text(text, no_wrap=True))
    return grid


def _expected(forecast: Forecast) -> str:
    return f"{rough_duration(forecast.seconds)}, {rough_size(forecast.memory_bytes)}"


def _chart(progress: Progress, width: int, height: int, console: "Console") -> Text:
    """Training loss of each step, and validation at its own values, on one axis that holds both.

    Empty where the terminal has no such characters.
    """
    losses, best = progress.losses, progress.best
    if not losses or width < 12 or height < 3 or not console.encoding.lower().startswith("utf"):
        return Text()
    marks = [Mark(each.step, each.loss, _VALIDATION) for each in progress.evaluations]
    if best and math.isfinite(best.loss):
        marks.append(Mark(best.step, best.loss, _BEST))
    curve = braille_curve(
        [loss for _, loss in losses], min(width, _WIDEST_CHART), height - 2,
        ends=[step for step, _ in losses], marks=marks,
    )  # fmt: skip
    text = Text(no_wrap=True)
    signs = {_VALIDATION: "yellow", _BEST: "bold red"}
    legend = f"{short(curve.high)}  ⠒ training loss" + (f"  {_VALIDATION} validation" if marks else "")
    metric = progress.recipe.evaluate.metric
    by = "" if metric == "loss" else f" by {metric_title(metric)}"
    end = f"{short(curve.low)}  to step {losses[-1][0]:,}" + (f"  {_BEST} best{by}" if best else "")
    for line, style in ((legend, "dim"), *((line, "cyan") for line in curve.lines), (end, "dim")):
        parts = re.split(f"([{''.join(signs)}])", line)
        text = Text.assemble(text, *((part, signs.get(part, style)) for part in parts), "\n")
    text.rstrip()
    return text


def _texts(progress: Progress, width: int, room: int) -> Iterator[Text]:
    """The newest texts, as many as there is room for: each answer before the prompt of the next one."""
    questions = _questions([text.prompt for text in progress.samples if text.reference is not None])
    for text in progress.samples:
        if room < 2:
            return
        lines = list(_text(text, questions.get(text.prompt), width, min(room, _MOST_TEXT_LINES)))
        yield from lines
        room -= len(lines)


def _questions(prompts: Sequence[str]) -> dict[str, str]:
    """Prompts without the first and last lines that all have: the chat template's; none if that is all."""
    different = [clean(prompt).split("\n") for prompt in dict.fromkeys(prompts)]
    if len(different) < 2:
        return {}
    first = _count_shared(different)
    last = _count_shared([lines[first:][::-1] for lines in different])
    inner = [" ".join("\n".join(lines[first : len(lines) - last]).split()) for lines in different]
    return dict(zip(dict.fromkeys(prompts), inner)) if all(inner) else {}


def _count_shared(texts: Sequence[Sequence[str]]) -> int:
    """The first lines that all texts have."""
    return sum(1 for _ in itertools.takewhile(lambda lines: len(set(lines)) == 1, zip(*texts)))


def _text(sample: Generation, question: str | None, width: int, room: int) -> Iterator[Text]:
    """A line of what was asked, the answer, and a line of the right answer if there is one.

    question: what was asked without the template, cut at its end; else the prompt is cut at its front.
    """
    prompt = clean(sample.prompt)
    is_shown = sample.reference is None and "\n" not in prompt and len(prompt) <= _LONG_PROMPT
    what = "continued" if sample.reference is None else "answered"
    asked = one_line(question, width - 30) if question else _end_of(prompt, width - 30)
    asked = "" if is_shown else f": {asked}"
    yield Text(f"{what} after step {sample.step:,}{asked}", style="dim")
    expected = sample.reference if room > 3 else None
    answer = Text()
    if sample.reference is None:  # the text goes on where the last line of its prompt ends
        answer.append(prompt.rpartition("\n")[2][-_LONG_PROMPT:], style="dim")
    answer.append(clean(sample.text).rstrip())
    answer.expand_tabs(4)
    lines = [line for line in answer.split("\n") if line.plain.strip()]
    if not sample.text.strip():
        characters = f"{len(sample.text):,} characters, all white space"
        lines = [Text(f"({characters if sample.text else 'nothing'})", style="dim")]
    for line in lines[: room - 1 - (expected is not None)]:
        line.truncate(width - 2, overflow="ellipsis")
        yield Text.assemble("  ", line)
    if expected is not None:
        yield Text(f"  expected: {one_line(expected, width - 13)}", style="dim")


def _notes(progress: Progress, width: int) -> Iterator[Text]:
    """The last finding, what was decided or asked for last, and the keys."""
    if finding := progress.finding:
        line = f"step {finding.step:,}  {finding.what}: {finding.evidence}; {finding.advice}"
        style = "red" if finding.severity == "error" else "yellow"
        parts = textwrap.wrap(one_line(line, 2 * width), width - 1, max_lines=2, placeholder=" …")
        yield from (Text(part, style=style) for part in parts)
    if control := progress.control:
        line = f"step {control.step:,}  {control.action}: {control.reason}"
        yield Text(one_line(line, width - 1), style="bold")
    elif progress.asked:
        yield Text(one_line(stopping(progress.asked), width - 1), style="bold")
    if progress.keys:
        yield Text(one_line(progress.keys, width - 1), style="dim")


def _end_of(text: str, width: int) -> str:
    """The end of a text on one line: what stands right before an answer."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"…{line[1 - width :]}"


def _count(count: int) -> str:
    for unit, least in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= least:
            return f"{count / least:.1f}{unit}"
    return str(count)

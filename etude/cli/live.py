"""The view of a run that goes on: a live picture on a terminal, plain lines anywhere else."""

import math
import os
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.cli.printing import Output, open_console, say
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    Evaluation,
    Event,
    Finding,
    Generation,
    Resource,
    Step,
)
from etude.records.store import Run
from etude.records.trackers import describe
from etude.records.window import OpenWindow, Window
from etude.report.charts import braille_curve
from etude.report.figures import lowest
from etude.report.history import read_history
from etude.report.wording import NOTHING, duration, number, percent, size
from etude.text import clean, one_line, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_RECENT_STEPS = 100  # for the ETA: enough to even out, few enough to follow a change of speed
_LINE_SECONDS, _LINE_SHARE = 3.0, 0.01  # between plain lines: seconds, and share of the time so far
_LINE_WIDTH = 240
_REDRAW_SECONDS = 0.25
_CURVE_LINES, _FIGURES_WIDTH = 9, 34
_REST_LINES = 20  # of the picture, beside the sample


def open_view(terminal: bool | None = None) -> "LineView | LiveView":
    """A view on stderr: live if that is a terminal that can, else lines."""
    if terminal is None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return LiveView() if terminal else LineView()


class LineView:
    """Plain lines: evaluations and decisions always, log lines every few seconds and then more seldom."""

    def __init__(self) -> None:
        self._window = OpenWindow()
        self._started = self._printed = time.monotonic()

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        _print_plan(run, rows)

    def write(self, event: Event) -> None:
        line = describe(event, self._window)
        if line is None:
            return
        now = time.monotonic()
        if isinstance(event, Resource | CheckpointSaved):
            if now - self._printed < max(_LINE_SECONDS, _LINE_SHARE * (now - self._started)):
                return
            self._printed = now
        say(printable(line)[:_LINE_WIDTH])

    def close(self) -> None:
        pass


class LiveView:
    """A picture of the run, drawn again when something was measured and once a second."""

    def __init__(self, console: "Console | None" = None) -> None:
        self._console = console or open_console(stderr=True)
        self._progress = Progress()
        self._live: Any = None
        self._drawn = 0.0

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        _print_plan(run, rows)
        self._progress = Progress(run.name, run.recipe.is_loss_plain)
        for entry in read_history(run).ledger.entries:
            self._progress.write(entry.event)

    def write(self, event: Event) -> None:
        """Take in a record; a view that fails leaves the terminal as it was before the error goes on."""
        try:
            self._progress.write(event)
            if self._live is None:
                self._start()
            elif not isinstance(event, Step) and time.monotonic() - self._drawn > _REDRAW_SECONDS:
                self._drawn = time.monotonic()
                self._live.refresh()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self) -> None:
        from rich.file_proxy import FileProxy
        from rich.live import Live

        self._live = Live(
            get_renderable=lambda: draw(self._progress, self._console),
            console=self._console,
            refresh_per_second=1,
            redirect_stdout=sys.stdout.isatty(),
            vertical_overflow="crop",
        )
        self._live.start()
        if isinstance(sys.stderr, FileProxy):  # which takes escapes in lines of libraries for colours
            sys.stderr = Output(sys.stderr, is_cleaned=True)


@dataclass
class Progress:
    """The figures of the records so far that the picture needs.

    losses   (step, mean loss) of every log window; every second one is dropped when they grow too many
    """

    name: str = ""
    is_loss_plain: bool = True
    attempt: Attempt | None = None
    window: Window | None = None
    resource: Resource | None = None
    evaluation: Evaluation | None = None
    best: Evaluation | None = None
    sample: Generation | None = None
    finding: Finding | None = None
    control: Control | None = None
    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    _window: OpenWindow = field(default_factory=OpenWindow)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    _steps_done: int = 0
    _pauses: float = 0.0
    _evaluated: bool = False
    _measured: float = field(default_factory=time.monotonic)
    _started: float = field(default_factory=time.monotonic)

    def write(self, event: Event) -> None:
        if window := self._window.add(event):
            self.window = window
            self._measured = time.monotonic()
            self.losses.append((window.step, window.loss))
            if len(self.losses) > 2000:
                self.losses = self.losses[::2]
        match event:
            case Attempt():
                self._restart(event)
            case Step():
                self.step = event.step
                self._steps_done += 1
                self._recent.append(event.seconds)
            case Resource():
                self.resource = event
            case Evaluation():
                self.evaluation = event
                self._pauses += event.seconds
                self._evaluated = True
                self.best = lowest(filter(None, (self.best, event)))
            case CheckpointSaved():
                self._pauses += event.blocking_seconds
            case Generation():
                self.sample = event
            case Finding():
                self.finding = event
            case Control():
                self.control = event

    @property
    def steps(self) -> int:
        return self.attempt.steps if self.attempt else 0

    @property
    def elapsed(self) -> float:
        """Seconds of this attempt."""
        return time.monotonic() - self._started

    def remaining(self) -> float | None:
        """Seconds to the last step: recent steps' median, and the mean pause for evaluations and saving."""
        if not self._recent or not self.steps:
            return None
        each = statistics.median(self._recent) + self._pauses / self._steps_done
        return max((self.steps - self.step) * each - (time.monotonic() - self._measured), 0.0)

    def eta(self) -> str:
        """The rest in words; before the first evaluation of the attempt its share is not known."""
        rest = self.remaining()
        if rest is None or self.step >= self.steps:
            return ""
        return f"{'about' if self._evaluated else 'over'} {duration(round(rest))} left"

    def gap(self) -> float | None:
        """Last validation loss less the training loss of the log window before it."""
        if self.evaluation is None or not self.is_loss_plain:
            return None
        loss = next((loss for step, loss in reversed(self.losses) if step <= self.evaluation.step), None)
        return None if loss is None else self.evaluation.loss - loss

    def _restart(self, attempt: Attempt) -> None:
        """Forget figures of an earlier attempt beyond the checkpoint, and its speed."""
        self.attempt, self.step = attempt, attempt.from_step
        self.losses = [point for point in self.losses if point[0] <= attempt.from_step]
        self._recent.clear()
        self._steps_done, self._pauses, self._evaluated = 0, 0.0, False
        self._started = self._measured = time.monotonic()
        self.control = None


def draw(progress: Progress, console: "Console") -> "RenderableType":
    """The picture: header, bar, figures beside the loss curve, latest sample and finding."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    width = console.width
    body = Table.grid(padding=(0, 2))
    body.add_column(width=_FIGURES_WIDTH)
    body.add_column()
    body.add_row(_figures(progress), _curve(progress, width - _FIGURES_WIDTH - 4, console))
    parts: list[RenderableType] = [_header(progress), _bar(progress, width), Text(), body]
    if progress.sample:
        parts += [Text(), *_sample(progress.sample, width, min(max(console.height - _REST_LINES, 2), 10))]
    if progress.finding:
        finding = progress.finding
        line = f"step {finding.step:,}  {finding.what}: {finding.evidence}; {finding.advice}"
        parts.append(Text(one_line(line, 2 * width - 2), style="yellow"))
    if progress.control:
        decision = f"{progress.control.action}: {progress.control.reason}"
        parts.append(Text(one_line(decision, width - 1), style="bold"))
    return Group(*parts)


def _header(progress: Progress) -> "Text":
    from rich.text import Text

    attempt = progress.attempt
    if attempt is None:
        return Text(printable(progress.name), style="bold")
    again = f"  attempt {attempt.number} from step {attempt.from_step:,}" if attempt.number > 1 else ""
    devices = f"{attempt.devices} x " if attempt.devices > 1 else ""
    count = f"{_short(attempt.parameters['total'])} parameters"
    rest = printable(f"  {count}  {devices}{attempt.device}, {attempt.precision}{again}")
    return Text.assemble((printable(progress.name), "bold"), rest, no_wrap=True, overflow="ellipsis")


def _bar(progress: Progress, width: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    steps = progress.steps
    share = f"{100 * progress.step / steps:.0f} %" if steps else ""
    words = "  ".join(filter(None, [share, f"{progress.step:,} / {steps:,}", progress.eta()]))
    row = Table.grid(padding=(0, 2))
    space = max(width - 4 - max(len(words), 42), 10)
    bar = ProgressBar(total=max(steps, 1), completed=progress.step, width=space)
    row.add_row(bar, Text(words, no_wrap=True))
    return row


def _figures(progress: Progress) -> "Table":
    from rich.table import Table
    from rich.text import Text

    window, resource, best = progress.window, progress.resource, progress.best
    evaluation, measured = progress.evaluation, window.resource if window else None
    gpu_memory = resource.gpu_memory_bytes if resource else None
    memory = gpu_memory if resource is None or gpu_memory is not None else resource.rss_bytes
    rows = [
        ("loss", number(window and window.loss)),
        ("validation", number(evaluation and evaluation.loss)),
        ("best", f"{number(best.loss)} @ {best.step:,}" if best else NOTHING),
        ("gap", number(progress.gap())),
        ("bits per byte", number(evaluation and evaluation.bits_per_byte)),
        ("learning rate", f"{window.learning_rate:.3g}" if window else NOTHING),
        ("gradient norm", number(window and window.grad_norm, 3)),
        ("tokens/s", number(measured and measured.tokens_per_second, 0)),
        ("MFU", percent(measured.mfu if measured else None)),
        ("memory" if gpu_memory is None else "GPU memory", size(memory)),
        ("data wait", percent(measured.wait_ratio if measured else None)),
        ("elapsed", duration(round(progress.elapsed))),
    ]
    grid = Table.grid(padding=(0, 2))
    for what, text in rows:
        grid.add_row(Text(what, style="dim"), Text(text, no_wrap=True))
    return grid


def _curve(progress: Progress, width: int, console: "Console") -> "Text":
    """Training loss of each log window as a level over its steps, the best validation marked.

    Empty where the terminal has no such characters.
    """
    from rich.text import Text

    losses = progress.losses
    if len(losses) < 2 or width < 12 or not console.encoding.lower().startswith("utf"):
        return Text()
    mark = None
    if progress.best:
        mark = next((i for i, (step, _) in enumerate(losses) if step >= progress.best.step), len(losses) - 1)
    values = [loss for _, loss in losses]
    finite = [value for value in values if math.isfinite(value)] or [math.nan]
    lines = braille_curve(values, min(width, 80), _CURVE_LINES, mark, ends=[step for step, _ in losses])
    text = Text(no_wrap=True)
    text.append(f"{max(finite):.3f}  training loss, mean of each log window\n", style="dim")
    for line in lines:
        before, sign, after = line.partition("◆")
        text.append(before, style="cyan")
        text.append(sign, style="bold red")
        text.append(f"{after}\n", style="cyan")
    best = "  ◆ best validation" if mark is not None else ""
    text.append(f"{min(finite):.3f}  to step {losses[-1][0]:,}{best}", style="dim")
    return text


def _sample(sample: Generation, width: int, height: int) -> "list[Text]":
    """The prompt dim, its continuation behind it, cut to a few lines."""
    from rich.text import Text

    text = Text.assemble((clean(sample.prompt), "dim"), clean(sample.text).rstrip())
    text.expand_tabs(4)
    lines = [line for line in text.split("\n") if line.plain.strip()]
    for line in lines:
        line.truncate(width - 3, overflow="ellipsis")
    shown = [Text.assemble("  ", line) for line in lines[:height]]
    return [Text(f"sample after step {sample.step:,}", style="dim"), *shown]


def _print_plan(run: Run, rows: list[tuple[str, str]]) -> None:
    rows = [("run", str(run.path)), *rows]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        say(f"{name:<{width}}  {one_line(text)}")


def _short(count: int) -> str:
    for unit, least in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= least:
            return f"{count / least:.1f}{unit}"
    return str(count)

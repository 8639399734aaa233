"""The view of a run that goes on: a live picture on a terminal, plain lines anywhere else."""

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from etude.cli.printing import Output, open_console, print_json_line, print_wrapped, say
from etude.control.signals import stopping
from etude.records.changes import planned_by
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    Evaluation,
    Event,
    Finding,
    Judgement,
    Resource,
    Step,
    to_json,
)
from etude.records.store import Run
from etude.records.trackers import describe
from etude.records.window import OpenWindow
from etude.report.history import read_history
from etude.report.progress import Pace, Progress
from etude.text import one_line, shorten

if TYPE_CHECKING:
    from rich.console import Console

    from etude.cli.keys import Keys


# Set in all that the kernel of a notebook starts: `!etude train` has a terminal there whose cursor cannot go
# up, so that each picture would stand below the one before it.
_OF_KERNEL = "JPY_PARENT_PID"
_LINE_SECONDS, _LINE_SHARE = 3.0, 0.01  # between plain lines: seconds, and share of the time so far
_LINE_WIDTH, _LINE_OF_FIGURES = 240, 800  # what was found, measured and judged is told whole
_REDRAW_SECONDS = 0.25
_FEW_STEPS = 100  # each of which has its line


def open_view(terminal: bool | None = None, *, as_json: bool = False) -> "LineView | LiveView | JsonView":
    """A view on stderr: live if that is a terminal that can, else lines; as_json: and records on stdout."""
    if as_json:
        # Lines of JSON on the same terminal would tear the picture.
        return JsonView(open_view(False if sys.stdout.isatty() else terminal))
    if terminal is None:
        is_dumb = os.environ.get("TERM", "dumb") == "dumb" or _OF_KERNEL in os.environ
        terminal = sys.stderr.isatty() and not is_dumb
    return LiveView() if terminal else LineView()


class LineView:
    """Plain lines: evaluations and decisions always, losses every few seconds and then more seldom.

    The first and the last loss are always there, and in a run of few steps each of them.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self._window, self._pace = OpenWindow(), Pace()
        self._started = time.monotonic()
        self._printed: dict[type, float] = {}  # when a line was printed, by the kind of its record
        self._steps = 0
        self._held: str | None = None  # the last loss, if it was not printed

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        self.run = run
        _print_plan([("run", str(run.path)), *rows])
        self._pace = Pace(run.recipe)
        for entry in read_history(run).ledger.entries:
            self._pace.write(entry.event)

    def write(self, event: Event) -> None:
        self._pace.write(event)
        self._steps = planned_by(event) or self._steps
        line = describe(event, self._window)
        # The first attempt begins as the plan says.
        if line is None or (isinstance(event, Attempt) and event.number == 1):
            return
        if isinstance(event, Resource):
            line = f"{line}  {self._pace.words()}".rstrip()
            self._held = line
        if isinstance(event, Control) and self._held:
            _say_line(self._held)
        if self._is_due(event):
            is_whole = isinstance(event, Finding | Evaluation | Judgement)
            _say_line(line, _LINE_OF_FIGURES if is_whole else _LINE_WIDTH)
            self._held = None if isinstance(event, Resource | Control) else self._held

    def acknowledge(self, signal: str) -> None:
        # Not by a stream, which the signal may have found in the middle of a write.
        with contextlib.suppress(OSError):
            os.write(2, f"{stopping(signal)}\n".encode())

    def close(self) -> None:
        pass

    def _is_due(self, event: Event) -> bool:
        """True if a record has a line now; losses and checkpoints each have a time of their own."""
        if not isinstance(event, Resource | CheckpointSaved):
            return True
        now, before = time.monotonic(), self._printed.get(type(event))
        is_always = isinstance(event, Resource) and (
            before is None or self._steps <= _FEW_STEPS or event.step == self._steps
        )
        pause = max(_LINE_SECONDS, _LINE_SHARE * (now - self._started))
        if is_always or now - (self._started if before is None else before) >= pause:
            self._printed[type(event)] = now
            return True
        return False


class JsonView:
    """Another view, and each record as a line of JSON on stdout."""

    def __init__(self, view: "LineView | LiveView | JsonView") -> None:
        self._view = view
        self._held: list[dict[str, Any]] | None = []  # lines that came before that of the run

    @property
    def run(self) -> Run | None:
        return self._view.run

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        held, self._held = self._held or [], None
        for line in ({"type": "run", "name": run.name, "path": str(run.path)}, *held):
            print_json_line(line)
        self._view.show_plan(run, rows)

    def write(self, event: Event) -> None:
        line = to_json(event, time.time())
        if self._held is None:
            print_json_line(line)
        else:
            self._held.append(line)
        self._view.write(event)

    def acknowledge(self, signal: str) -> None:
        self._view.acknowledge(signal)

    def close(self) -> None:
        self._view.close()


class LiveView:
    """A picture of the run, drawn again when something was measured and once a second."""

    def __init__(self, console: "Console | None" = None) -> None:
        self.run: Run | None = None
        self._console = console or open_console(stderr=True)
        self._progress: Progress | None = None
        self._live: Any = None
        self._keys: Keys | None = None
        self._drawn = 0.0

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        self.run = run
        # The picture itself has the device.
        _print_plan([("run", str(run.path)), *(row for row in rows if row[0] != "device")])
        history = read_history(run)
        self._progress = Progress(run.name, run.recipe, history.wall_seconds)
        for entry in history.ledger.entries:
            self._progress.write(entry.event)
        self._start()

    def write(self, event: Event) -> None:
        """Take in a record; a view that fails leaves the terminal as it was before the error goes on."""
        if self._progress is None:  # the plan comes after the first records, and finds them in the journal
            return
        try:
            self._progress.write(event)
            is_due = time.monotonic() - self._drawn > _REDRAW_SECONDS
            if self._live is not None and not isinstance(event, Step) and is_due:
                self._drawn = time.monotonic()
                self._live.refresh()
        except Exception:
            self.close()
            raise

    def acknowledge(self, signal: str) -> None:
        if self._progress is not None and self._live is not None:
            self._progress.asked = signal
            # Not here: the signal may have found a picture half drawn.
            threading.Thread(target=self._live.refresh, daemon=True).start()

    def close(self) -> None:
        if self._keys is not None:
            self._keys.close()
            self._keys = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self) -> None:
        from rich.file_proxy import FileProxy
        from rich.live import Live

        from etude.cli.keys import Keys
        from etude.cli.picture import draw

        progress = self._progress
        assert progress is not None
        self._live = Live(
            get_renderable=lambda: draw(progress, self._console),
            console=self._console,
            refresh_per_second=1,
            redirect_stdout=sys.stdout.isatty(),
            vertical_overflow="crop",
        )
        self._live.start()
        if isinstance(sys.stderr, FileProxy):  # which takes escapes in lines of libraries for colours
            sys.stderr = Output(sys.stderr, is_cleaned=True)
        assert self.run is not None
        self._keys = Keys(self.run, self._show_keys)
        self._keys.open()

    def _show_keys(self, line: str) -> None:
        progress, live = self._progress, self._live
        if progress is not None and live is not None:
            progress.keys = line
            live.refresh()


def _print_plan(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print_wrapped(f"{name:<{width}}  ", one_line(text), indent=width + 2, stderr=True)


def _say_line(line: str, width: int = _LINE_WIDTH) -> None:
    say(shorten(line, width))

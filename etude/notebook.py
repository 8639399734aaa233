"""The view of a run in a notebook: one line and a chart that replace themselves."""

import sys
import time
from typing import Any

from etude.control.signals import stopping
from etude.records.events import Control, Event, Step
from etude.records.folder import as_argument
from etude.records.store import Run
from etude.report.cell import live_html, state_words
from etude.report.history import read_history
from etude.report.progress import Progress
from etude.text import printable

_REDRAW_SECONDS = 2.0
_LINE_SECONDS = 30.0


def notebook_view() -> "NotebookView | None":
    """A view for the cell that runs now; None where no IPython does.

    IPython is looked for among what is imported, so that nothing is imported anywhere else.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return None if shell is None else NotebookView(has_display=hasattr(shell, "kernel"))


class NotebookView:
    """A picture that takes the place of the one before, every two seconds at most.

    has_display: else a line is printed, every 30 s at most and at the end, as in IPython on a terminal.
    """

    def __init__(self, *, has_display: bool) -> None:
        self._has_display = has_display
        self._progress: Progress | None = None
        self._run: Run | None = None
        self._handle: Any = None
        self._drawn = -_LINE_SECONDS

    def show_plan(self, run: Run, rows: list[tuple[str, str]]) -> None:
        self._run, history = run, read_history(run)
        self._progress = Progress(run.name, run.recipe, history.wall_seconds)
        for entry in history.ledger.entries:
            self._progress.write(entry.event)
        print(f"run {printable(str(run.path))}", flush=True)
        self._draw()

    def write(self, event: Event) -> None:
        if self._progress is None:  # the plan comes after the first records, and finds them in the journal
            return
        self._progress.write(event)
        pause = _REDRAW_SECONDS if self._has_display else _LINE_SECONDS
        is_decided = isinstance(event, Control)
        if is_decided or (not isinstance(event, Step) and time.monotonic() - self._drawn >= pause):
            self._draw()

    def acknowledge(self, signal: str) -> None:
        if self._progress is not None:  # drawn with the next record: a signal may come within a message
            self._progress.asked = signal

    def close(self) -> None:
        if self._progress is None or self._run is None:
            return
        self._draw()
        if self._progress.step < self._progress.steps:
            print(f"the same cell, or etude resume {as_argument(self._run.path)}, continues it", flush=True)

    def _draw(self) -> None:
        assert self._progress is not None
        self._drawn = time.monotonic()
        if not self._has_display:
            print(state_words(self._progress), flush=True)
            return
        from IPython.display import HTML, display

        asked = self._progress.asked
        picture = HTML(
            live_html(self._progress, stopping(asked) if asked and not self._progress.control else "")
        )
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

"""A run that outlives the terminal it was started from, and a look at a run that goes on elsewhere."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.printing import say
from etude.text import printable

if TYPE_CHECKING:
    from etude.records.store import Run

Detach = Annotated[
    bool, typer.Option("--detach", help="go on without this terminal, once the first step is near")
]
_LOOK_SECONDS = 0.5


def detach(runs: Path) -> None:
    """Run this very command in a session of its own, and leave once its run has begun.

    What it prints until then is shown here, and is kept in output.txt of the run folder.

    Raises: typer.Exit, with the code of the command if that ended first.
    """
    from etude.launch.detached import Detached
    from etude.records.folder import as_argument

    started = Detached.start([word for word in sys.argv[1:] if word != "--detach"], runs)
    try:
        run = None
        while run is None and started.process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            _show(started.lines())
            run = started.begun()
    except KeyboardInterrupt:
        started.process.terminate()
        started.forget()
        raise
    if run is None:
        _show(started.lines())
        started.forget()
        raise typer.Exit(started.process.wait())
    say(f"run {run.path} goes on as process {started.process.pid}, without this terminal")
    say(f"watch it with: etude show {as_argument(run.path)} --follow")
    raise typer.Exit


def follow(run: "Run") -> None:
    """Show a run as its own terminal does, until it ends; Ctrl-C leaves it as it is."""
    from etude.cli.execute import tell_outcome
    from etude.cli.live import open_view
    from etude.records.journal import Reader
    from etude.report.summary import summarize

    reader = Reader(run.path / "journal.jsonl")
    entries = reader.read().entries
    seen, attempt = len(entries), entries[-1].attempt if entries else 0
    view = open_view()
    view.show_plan(run, [("state", run.state)])
    try:
        while True:
            is_going_on = run.state in ("running", "paused")  # asked first: the look has the last records
            entries = reader.read().entries
            if entries and entries[-1].attempt != attempt:  # it made others void
                seen = next(index for index, each in enumerate(entries) if each.attempt > attempt)
                attempt = entries[-1].attempt
            for entry in entries[seen:]:
                view.write(entry.event)
            seen = len(entries)
            if not is_going_on:
                break
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        return
    finally:
        view.close()
    if run.state == "finished":
        tell_outcome(run)
    else:
        say(summarize(run)["end"])


def _show(lines: list[str]) -> None:
    for line in lines:
        say(printable(line))

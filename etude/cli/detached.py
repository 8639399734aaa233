"""A run that outlives the terminal it was started from, and a look at a run that goes on elsewhere."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.printing import say
from etude.processes import python_command, python_environment
from etude.text import printable

if TYPE_CHECKING:
    from etude.records.store import Run

Detach = Annotated[
    bool, typer.Option("--detach", help="go on without this terminal, once the first step is near")
]
OUTPUT = "output.txt"  # in the run folder: what such a run printed
_LOOK_SECONDS = 0.5


def detach(runs: Path) -> None:
    """Run this very command in a session of its own, and leave once its run has begun.

    What it prints until then is shown here, and is kept in output.txt of the run folder.

    Raises: typer.Exit, with the code of the command if that ended first.
    """
    from etude import durable
    from etude.records.folder import as_argument, require_runs_folder

    require_runs_folder(runs)
    durable.make_folder(runs)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".output", dir=runs)
    words = [word for word in sys.argv[1:] if word != "--detach"]
    with os.fdopen(descriptor, "wb") as file:
        process = subprocess.Popen(
            python_command("etude", *words), env=python_environment(), stdin=subprocess.DEVNULL,
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    output, shown = Path(name), 0
    try:
        run = None
        while run is None and process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            shown = _show_rest(output, shown)
            run = _find_run(runs, process.pid)
    except KeyboardInterrupt:
        process.terminate()
        output.unlink()
        raise
    if run is None:
        _show_rest(output, shown)
        output.unlink()
        raise typer.Exit(process.wait())
    output.rename(run.path / OUTPUT)
    say(f"run {run.path} goes on as process {process.pid}, without this terminal")
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


def _show_rest(output: Path, shown: int) -> int:
    """Print the whole lines of a file from a place on; returns the next place."""
    with output.open("rb") as file:
        file.seek(shown)
        chunk = file.read(1 << 16)
    whole = chunk[: chunk.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", "replace").splitlines():
        say(printable(line))
    return shown + len(whole)


def _find_run(runs: Path, pid: int) -> "Run | None":
    """The run under a folder that a process, or one that it started, holds and has begun."""
    import psutil

    from etude.errors import EtudeError
    from etude.records.store import list_runs

    pids = {pid}
    with contextlib.suppress(psutil.Error):
        pids.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    for run in reversed(list_runs(runs)):
        with contextlib.suppress(EtudeError):
            has_begun = (run.path / "journal.jsonl").exists() and (run.path / "environment.json").exists()
            if has_begun and run.state == "running" and run.lease.get("pid") in pids:
                return run
    return None

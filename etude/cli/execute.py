"""The execution of one run for a person: in this process with a view, or in ranks."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from etude.cli.printing import open_console, print_json_line, print_wrapped, say
from etude.control.ranks import describe_siblings, read_place
from etude.text import shorten

if TYPE_CHECKING:
    from etude.launch.ranks import Ended
    from etude.recipe.schema import Recipe
    from etude.records.store import Run
    from etude.start import Options


def train_here(
    recipe: "Recipe", options: "Options", *, to_continue: str | None = None, as_json: bool = False
) -> "Ended":
    """Train in this process with a view on stderr. Raises: typer.Exit if the run can be continued.

    as_json: print each record as a line of JSON, and at the end the summary.
    """
    from etude.cli.live import open_view
    from etude.launch.seeds import execute
    from etude.records.folder import as_argument, require_outside_runs
    from etude.records.store import read_runs

    if options.resume is None:
        require_outside_runs(options.runs)
    place, view = read_place(), None
    if place.rank == 0:
        if place.size == 1 and (siblings := describe_siblings()):
            say(siblings)
        if place.size > 1 and place.folder is None:
            store = f"their store, at port {os.environ['MASTER_PORT']}, listens on every address"
            say(
                f"these ranks were not started by etude: {store} of the machine without a password, "
                "and so may their exchange; --devices keeps to it"
            )
        if options.resume is None:
            for name, problem in read_runs(options.runs)[1].items():
                say(f"{name} is left out, also if it is a run of this recipe: {problem}")
        plan = "prepares the data (once; it is kept), then trains; Ctrl-C saves and stops"
        print_wrapped("", f"{recipe.name}: {plan}", stderr=True)
        view = open_view(as_json=as_json)
        options = replace(options, view=view)
    try:
        ended = execute(recipe, options, [])
    except KeyboardInterrupt:
        if view is not None and view.run is not None:
            say(_tell_saved(view.run))
        raise
    assert ended.run is not None
    if place.rank == 0:
        if ended.code:
            word = "paused" if ended.run.state == "paused" else "stopped"
            say(f"{word}; {_tell_saved(ended.run)}")  # the reason is the last line of the view
            say(f"continue with: {to_continue or f'etude resume {as_argument(ended.run.path)}'}")
        else:
            tell_outcome(ended.run)
        if as_json:
            print_end(ended.run, ended.code)
    if ended.code:
        raise typer.Exit(ended.code)
    return ended


def describe_rest(run: "Run") -> str:
    """The steps that a run has made, and the time that the others take at its pace; "" before the first."""
    from etude.report.history import read_history
    from etude.report.progress import Pace

    history, pace = read_history(run), Pace(run.recipe)
    for entry in history.ledger.entries:
        pace.write(entry.event)
    if not history.steps or not (left := pace.words()):
        return ""
    done = f"step {history.steps[-1].step:,} of {history.attempts[-1].steps:,} is made"
    return f"{run.name}: {done}; {left} at the pace so far, more where steps were not saved"


def _tell_saved(run: "Run") -> str:
    """The step of the newest checkpoint in words."""
    from etude.records.folder import list_checkpoints, step_of

    saved = [step_of(path.name) or 0 for path in list_checkpoints(run.checkpoints)]
    return f"saved at step {max(saved):,}" if saved else "nothing is saved yet"


def tell_finished(recipe: "Recipe", runs: Path, weights: str | None = None, *, as_json: bool = False) -> bool:
    """Tell the outcome of a finished run of the same recipe and data; False if there is none to tell of."""
    from etude.records.store import find_runs

    place = read_place()
    # Ranks that etude started do not ask again: the command that started them has.
    if place.folder is not None or not find_runs(runs, recipe):
        return False
    from etude.launch.seeds import find_finished
    from etude.start import Options

    run = find_finished(recipe, Options(runs=runs, weights=weights))
    if run is not None and place.rank == 0:
        say(f"{run.path} has trained this recipe on this data to its end; --new trains it again")
        tell_outcome(run)
        if as_json:
            print_end(run, 0)
    return run is not None


def print_end(run: "Run", exit_code: int) -> None:
    """Print the last line of JSON on a run: the exit code, and all that `etude show` has."""
    from etude.report.summary import summarize

    print_json_line({"type": "end", "exit_code": exit_code, **summarize(run).to_dict()})


def tell_outcome(run: "Run") -> None:
    """Print the verdict on a finished run, its best checkpoint, and commands to go on with."""
    from etude.report.history import read_history
    from etude.report.summary import best_text, next_commands, summarize_history

    history = read_history(run)
    summary = summarize_history(history)
    say("")
    for sentence in (summary["end"], *summary["verdict"]):
        print_wrapped("", sentence, stderr=True)
    if summary["criteria"]:
        print_wrapped("", f"Success criteria: {summary['criteria']}.", stderr=True)
    for problem in summary["problems"]:
        print_wrapped("! ", problem, style="yellow", stderr=True)
    rows = [
        ("best", best_text(summary)), ("report", str(run.path / "report" / "report.md")),
        *zip(("next", "", "", ""), next_commands(history)),
    ]  # fmt: skip
    for name, text in rows:
        print_wrapped(f"{name:<8}", text, indent=8, stderr=True)


def start_ranks(recipe: "Recipe") -> None:
    """Run this very command in the ranks that a recipe wants, and leave; return where they need no start."""
    from etude.launch.ranks import has_own_ranks, run_ranks

    if has_own_ranks(recipe):
        tell_ranks(run_ranks(recipe, sys.argv[1:]))
        raise typer.Exit


def tell_ranks(ended: "Ended") -> None:
    """Print why ranks ended. Raises: typer.Exit if they failed."""
    if ended.is_cursor_hidden:  # a rank that was killed while it drew the view left it so
        open_console(stderr=True).show_cursor()
    if ended.reason:
        say(shorten(ended.reason))
    if ended.code:
        raise typer.Exit(ended.code)

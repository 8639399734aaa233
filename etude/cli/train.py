"""`etude train` and what goes the same way: one run with a view, several ranks of it, several seeds."""

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from etude.cli.printing import open_console, print_table, say
from etude.control.ranks import read_place
from etude.text import shorten

if TYPE_CHECKING:
    from etude.recipe.schema import Recipe
    from etude.start import Options


def train_one(recipe: "Recipe", options: "Options", *, to_continue: str | None = None) -> Any:
    """Train with a view on stderr, and leave with the code that says how it ended."""
    from etude.cli.live import open_view
    from etude.records.folder import require_outside_runs
    from etude.records.store import read_runs
    from etude.run import Training

    if options.resume is None:
        require_outside_runs(options.runs)
    place = read_place()
    if place.rank == 0:
        if place.size > 1 and place.folder is None:
            say(
                f"these ranks were not started by etude: their store, at port {os.environ['MASTER_PORT']}, "
                "listens on every address of the machine without a password, and so may their exchange; "
                "--devices keeps to it"
            )
        if options.resume is None:
            for name, problem in read_runs(options.runs)[1].items():
                say(f"{name} is left out, also if it is a run of this recipe: {problem}")
        say(
            f"{recipe.name}: reading and preparing the data (once; it is kept), then training; Ctrl-C saves "
            "and stops"
        )
        options = replace(options, view=open_view())
    training = Training(recipe, options)
    for _ in training:
        pass
    if place.rank == 0:
        if training.ending.reason:
            say(f"stopped: {training.ending.reason}")
        if training.ending.is_resumable:
            say(f"continue with: {to_continue or f'etude resume {training.run.path}'}")
        else:
            say(f"report: {training.run.path / 'report' / 'report.md'}")
    if training.ending.is_resumable:
        raise typer.Exit(75)
    return training


def train_repeatedly(recipe: "Recipe", options: "Options", count: int, words: list[str]) -> None:
    """Train several seeds, and print what each came to; `words` are the command for the first of them."""
    from etude.cli.repeat import compare_command, outcome_table, train_seeds
    from etude.errors import InputError
    from etude.records.store import Run, find_runs

    if read_place().size > 1:
        raise InputError(
            "--repeat starts the ranks of each run itself; leave torchrun out and give --devices"
        )

    def train(one: "Recipe", options: "Options") -> Run:
        if one.train.devices > 1:
            given = [
                "--runs",
                str(options.runs),
                "--devices",
                str(one.train.devices),
                *(["--new"] * options.new),
            ]
            given += ["--from", options.weights] if options.weights else []
            if code := _run_ranks(one.train.devices, [*words, f"seed={one.seed}", *given]):
                sys.exit(code)
            return find_runs(options.runs, one)[-1]
        training = train_one(one, options, to_continue="the same command")
        if training.ending.was_asked:
            say("stopped; continue with: the same command")
            raise typer.Exit(75)
        return Run(training.run.path)

    done = train_seeds(recipe, options, count, train, say)
    print_table(outcome_table(done))
    say(f"side by side: {compare_command(done, options.runs)}")


def start_ranks(ranks: int) -> None:
    """Run this very command in several ranks, and leave with their exit code."""
    sys.exit(_run_ranks(ranks, sys.argv[1:]))


def _run_ranks(ranks: int, words: list[str]) -> int:
    """Run a command in several ranks; returns their exit code."""
    from etude.launch import run_ranks

    ended = run_ranks(ranks, words)
    if ended.is_cursor_hidden:  # a rank that was killed while it drew the view left it so
        open_console(stderr=True).show_cursor()
    if ended.reason:
        say(shorten(ended.reason))
    return ended.code

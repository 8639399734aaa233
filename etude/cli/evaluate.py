"""The command that scores runs on one file of rows, or lets one that is going on evaluate now."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli import steer
from etude.cli.completion import complete_checkpoint
from etude.cli.options import Json, Runs, parse_name, parse_new_file, parse_path
from etude.cli.printing import page_width, print_json, print_text, say
from etude.errors import InputError
from etude.text import printable


def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name,
            help="RUN (its best), RUN@last, RUN@step-200, or a folder",
            metavar="RUN|FOLDER...",
            autocompletion=complete_checkpoint,
        ),
    ],
    on: Annotated[
        Path | None,
        typer.Option(
            "--on", parser=parse_path, metavar="FILE", help="file of rows in the format of the run's data"
        ),
    ] = None,
    answers: Annotated[
        int | None, typer.Option("--answers", min=0, help="rows to answer (default: evaluate.answers)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_new_file, metavar="FILE", help="also write JSON there"),
    ] = None,
    wait: steer.Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score runs on the same file of rows, side by side; or let a run that is going on evaluate now."""
    if on is None:
        _evaluate_now(model, wait=wait, runs=runs, as_json=as_json)
        return
    from etude import durable
    from etude.records.events import plain
    from etude.rescore import rescore

    found = rescore(model, on, runs=runs, answers=answers)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text("\n".join(map(printable, found.lines(page_width()))))
    if out is not None:
        durable.write_file(out, (json.dumps(plain(found.to_dict()), indent=2) + "\n").encode())
        say(f"written to {out}")


def _evaluate_now(names: list[str], *, wait: bool, runs: Path, as_json: bool) -> None:
    """Let a run that is going on measure itself on its validation samples. Raises: InputError."""
    from etude.control.mailbox import is_going_on
    from etude.records.store import open_run

    found = [open_run(name, runs) for name in names]
    if len(found) > 1 or not is_going_on(found[0]):
        which = f"{len(found)} runs" if len(found) > 1 else f"run {found[0].name}, which is {found[0].state}"
        raise InputError(f"give --on FILE to score {which}; one run that is going on evaluates without it")
    steer.ask(found[0], "evaluate", wait=wait, as_json=as_json)

"""The command that scores runs on one file of rows."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.completion import complete_checkpoint
from etude.cli.options import Json, Runs, parse_name, parse_new_file, parse_path
from etude.cli.printing import page_width, print_json, print_text, say
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
        Path,
        typer.Option(
            "--on", parser=parse_path, metavar="FILE", help="file of rows in the format of the run's data"
        ),
    ],
    answers: Annotated[
        int | None, typer.Option("--answers", min=0, help="rows to answer (default: evaluate.answers)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_new_file, metavar="FILE", help="also write JSON there"),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score runs on the same file of rows, side by side, with an interval for every figure."""
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

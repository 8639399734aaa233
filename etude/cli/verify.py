"""`etude verify`: what is told about a training, held against its records or against itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.completion import complete_run
from etude.cli.options import Json, Runs, parse_name, parse_new_file
from etude.cli.verify_document import verify_document
from etude.cli.verify_run import MOST_SEED, verify_others, verify_own
from etude.errors import InputError
from etude.text import shorten


def verify(
    what: Annotated[
        str,
        typer.Argument(
            parser=parse_name,
            help="a run, a sweep folder, an exported model, a comparison (compare --json), or a document: "
            "Markdown, notebook, log, TOML, YAML or JSON",
            metavar="RUN|SWEEP|MODEL|DOC",
            show_default=False,
            autocompletion=complete_run,
        ),
    ],
    runs: Runs = Path("runs"),
    replay: Annotated[
        int | None,
        typer.Option(
            "--replay", min=1, max=1000, help="of a run: train so many stretches between checkpoints again"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="of the lot that draws the stretches")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(parser=parse_new_file, help="of a document: write it with its findings in the margin"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a run against its journal, or the figures of a document against each other.

    Exit code 1 if something does not follow, or contradicts.
    """
    from etude.report.verifying_comparison import is_comparison

    path = Path(what)
    is_other = path.is_dir() and any(os.path.lexists(path / name) for name in ("sweep.toml", "README.md"))
    if (is_other and not os.path.lexists(path / "run.json")) or is_comparison(path):
        if (replay, seed, html) != (None, None, None):
            raise InputError("--replay and --seed are for a run, --html is for a document; leave them out")
        verify_others(path, runs, as_json=as_json)
        return
    if path.suffix and not path.is_dir() and not (runs / what).is_dir():
        if replay is not None or seed is not None:
            raise InputError("--replay and --seed are for a run; leave them out for a document")
        verify_document(path, html, as_json=as_json)
        return
    if path.is_dir() and not os.path.lexists(path / "run.json"):
        raise InputError(
            f"{shorten(what, 80)} is a folder and no run, sweep or model; give one, or a document in it"
        )
    if html is not None:
        raise InputError("--html is for a document; etude report RUN --html writes the page of a run")
    verify_own(what, runs, replay, seed, as_json=as_json)

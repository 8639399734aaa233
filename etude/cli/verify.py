"""`etude verify`: figures that do not follow from each other, in a training document of anybody."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import Json, parse_new_file, parse_path
from etude.cli.verify_document import verify_document
from etude.errors import InputError
from etude.text import shorten


def verify(
    what: Annotated[
        Path,
        typer.Argument(
            parser=parse_path,
            help="a document: Markdown, notebook, log, TOML, YAML or JSON",
            metavar="DOC",
            show_default=False,
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(parser=parse_new_file, help="write the document with its findings in the margin"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the figures of a training document against each other; exit code 1 if some contradict."""
    if what.is_dir():
        raise InputError(f"{shorten(what, 80)} is a folder; give a document, such as report/report.md in it")
    verify_document(what, html, as_json=as_json)

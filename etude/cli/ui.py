"""The command that serves the page of runs on this machine."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from etude import __version__
from etude.cli.options import parse_folder
from etude.cli.printing import print_text, say
from etude.errors import InputError


def ui(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=parse_folder,
            metavar="[DIR]...",
            show_default=False,
            help="folders of runs or sweeps, or one of those (default: runs and sweeps here)",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="the port (default: 8171, or the next that is free)"),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="another address to listen on than this machine alone")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="only show: nothing can be asked of a run, or started")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="open no browser")] = False,
) -> None:
    """Serve the page on which runs are watched, steered and compared; Ctrl-C ends it, and no run with it."""
    from etude.ui.library import Library
    from etude.ui.server import default_folders, make_server, open_address, open_browser

    for folder in folders or ():
        if not folder.is_dir():
            raise InputError(f"{folder} is not there; give a folder of runs")
    address = open_address(host, port)
    if host not in (None, "127.0.0.1", "::1", "localhost"):
        say(f"note: {host} may be reached by others, and what passes is not encrypted; ssh -L does without")

    def started() -> None:
        print_text(address.link)
        sys.stdout.flush()  # also into a file, where it is looked up
        if not no_open:
            open_browser(address.link)

    library = Library(folders or default_folders())
    server = make_server(library, address, __version__, read_only=read_only, started=started, told=say)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(address.sockets)

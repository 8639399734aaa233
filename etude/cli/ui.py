"""The command that serves the page of runs on this machine."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from etude import __version__
from etude.cli.options import parse_new_file, parse_path
from etude.cli.printing import print_text, say
from etude.errors import InputError


def ui(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=parse_path,
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
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="the page's address at a proxy that leads here, as of Jupyter or code-server"
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="only show: nothing can be asked of a run, or started")
    ] = False,
    exported: Annotated[
        bool, typer.Option("--export", help="write RUN... into the file given last, to mail; serve nothing")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="open no browser")] = False,
) -> None:
    """Serve the page on which runs are watched, steered and compared; Ctrl-C ends it, and no run with it."""
    from etude.ui.library import Library
    from etude.ui.priority import at_first_priority, step_back
    from etude.ui.server import default_folders, make_server, open_address, open_browser

    if exported:
        export(folders or [])
        return
    for folder in folders or ():
        if not folder.is_dir():
            raise InputError(f"{folder} is not there; give a folder of runs")
    address = open_address(host, port, url)
    if host not in (None, "127.0.0.1", "::1", "localhost"):
        say(f"note: {host} may be reached by others, and what passes is not encrypted; ssh -L does without")

    def started() -> None:
        print_text(address.link)
        sys.stdout.flush()  # also into a file, where it is looked up
        if not no_open:
            at_first_priority(lambda: open_browser(address.link))

    library = Library(folders or default_folders())
    server = make_server(library, address, __version__, read_only=read_only, started=started, told=say)
    step_back()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(address.sockets)


def export(given: list[Path]) -> None:
    """Write runs into one file, the last of the paths. Raises: InputError."""
    from etude.records.store import open_run
    from etude.text import rough_size
    from etude.ui.exporting import export_page

    if len(given) < 2 or given[-1].suffix != ".html":
        raise InputError("--export takes runs and then a file, as etude ui --export my-run out.html")
    path = parse_new_file(str(given[-1]))
    size = export_page([open_run(str(run)) for run in given[:-1]], path, __version__)
    say(f"written to {path} ({rough_size(size)}); it opens without a server or a network")

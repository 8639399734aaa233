"""The command that lets a model answer programs on this machine."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from etude.cli.model import Speaking
from etude.cli.options import Json, Runs
from etude.cli.printing import print_json_line, print_text, say

PORT = 8181
_MOST_CONNECTIONS = 512


def serve(
    model: Speaking,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="the port (default: 8181, or the next that is free)"),
    ] = None,
    context: Annotated[
        int, typer.Option("--context", min=2, help="tokens of a prompt and its answer at most")
    ] = 4096,
    rows: Annotated[int, typer.Option("--rows", min=1, max=256, help="answers written side by side")] = 32,
    waiting: Annotated[
        int, typer.Option("--waiting", min=1, max=4096, help="answers that may wait for a row")
    ] = 256,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, max=86400, help="of an answer at most"),
    ] = 120.0,
    prefix_mb: Annotated[
        int, typer.Option("--prefix-mb", min=0, help="memory for prompts that others begin with, in MB")
    ] = 256,
    pooling: Annotated[
        Literal["mean", "last"],
        typer.Option("--pooling", help="of the hidden states of a text, for its embedding"),
    ] = "mean",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Answer programs on this machine as OpenAI's servers do, with a token; Ctrl-C ends it."""
    from etude.serve.app import make_app
    from etude.serve.engine import Engine, Limits
    from etude.serve.opened import open_model
    from etude.serve.reader import Reader
    from etude.ui.gate import Gate
    from etude.ui.server import open_address
    from etude.ui.server import serve as make_server

    address = open_address(port=port, usual=PORT)  # before the model, which takes long
    with contextlib.ExitStack() as ending:
        for each in address.sockets:
            ending.callback(each.close)
        opened = open_model(model, runs, context=context, pooling=pooling, told=say)
        limits = Limits(rows, waiting, context, seconds, prefix_mb << 20)
        engine = Engine(opened.speaker, limits, say) if opened.speaker else None
        app = make_app(opened, engine, Reader(opened.precision, limits, say))

        def started() -> None:
            base = f"http://127.0.0.1:{address.sockets[0].getsockname()[1]}/v1"
            if as_json:
                print_json_line({"base_url": base, "api_key": address.token, "model": opened.name})
            else:
                print_text(f"base_url  {base}\napi_key   {address.token}\nmodel     {opened.name}")
            sys.stdout.flush()  # also into a file, where it is looked up

        gate = Gate(app, address.token, address.names, is_api=True)
        with contextlib.suppress(KeyboardInterrupt):
            make_server(gate, started, _MOST_CONNECTIONS).run(address.sockets)

"""The command that lets a model answer programs on this machine."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

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
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Answer programs on this machine as OpenAI's servers do, with a token; Ctrl-C ends it."""
    from etude.export import find_end_ids, find_folder
    from etude.serve.app import make_app
    from etude.serve.engine import Engine, Limits
    from etude.speaker import open_speaker
    from etude.ui.gate import Gate
    from etude.ui.server import open_address
    from etude.ui.server import serve as make_server

    address = open_address(port=port, usual=PORT)  # before the model, which takes long
    with contextlib.ExitStack() as opened:
        for each in address.sockets:
            opened.callback(each.close)
        speaker = open_speaker(model, runs, told=say)
        folder = find_folder(model, runs)
        ends = find_end_ids(folder, speaker.chat, is_chat=True)
        limits = Limits(rows, waiting, context, seconds, prefix_mb << 20)
        # A run by its name, a folder by its own.
        name = folder.resolve().name if (Path(model) / "config.json").is_file() else model
        engine = Engine(speaker, limits, say)

        def started() -> None:
            base = f"http://127.0.0.1:{address.sockets[0].getsockname()[1]}/v1"
            if as_json:
                print_json_line({"base_url": base, "api_key": address.token, "model": name})
            else:
                print_text(f"base_url  {base}\napi_key   {address.token}\nmodel     {name}")
            sys.stdout.flush()  # also into a file, where it is looked up

        gate = Gate(make_app(engine, name, ends), address.token, address.names, is_api=True)
        with contextlib.suppress(KeyboardInterrupt):
            make_server(gate, started, _MOST_CONNECTIONS).run(address.sockets)

"""The command that averages the weights of checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.completion import complete_checkpoint
from etude.cli.options import Json, Runs, parse_name, parse_output
from etude.cli.printing import print_rows


def average_runs(
    run: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name,
            help="RUN (its best), RUN@last or RUN@step-200; with --last, RUN alone",
            metavar="RUN...",
            autocompletion=complete_checkpoint,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", parser=parse_output, metavar="FOLDER", help="the folder to write")
    ],
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", help="average the last N checkpoints of one run")
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="take a run only if the mean does not get worse by it")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Average the weights of checkpoints, say whether it helps, and write a folder unless it is worse."""
    from etude.average import average

    found = average(run, out, last=last, greedy=greedy, runs=runs)
    folder = str(out.absolute())
    print_rows([("folder", folder), *found.rows()], {"folder": folder, **found.to_dict()}, as_json)

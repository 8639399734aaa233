"""The command that forks a run."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.completion import complete_checkpoint
from etude.cli.execute import tell_ranks, train_here
from etude.cli.options import JsonLines, Overrides, Runs, parse_name
from etude.cli.printing import print_json, say


def fork_run(
    run: Annotated[
        str,
        typer.Argument(
            parser=parse_name,
            help="RUN (its newest checkpoint), RUN@best, RUN@last or RUN@200",
            metavar="RUN[@STEP]",
            autocompletion=complete_checkpoint,
        ),
    ],
    overrides: Overrides = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="train at once, or only make it")] = True,
    runs: Runs = Path("runs"),
    as_json: JsonLines = False,
) -> None:
    """Go on from a checkpoint of a run as another run, with changes; the first one stays as it is."""
    from etude.forking import fork
    from etude.launch.ranks import has_own_ranks, run_ranks
    from etude.recipe.toml import parse_override
    from etude.records.folder import as_argument
    from etude.start import Options

    made = fork(run, dict(map(parse_override, overrides or [])), runs)
    origin, command = made.info["origin"], f"etude resume {as_argument(made.path)}"
    say(f"{made.path} goes on from step {origin['step']:,} of {origin['run']}")
    if not start:
        say(f"start it with: {command}")
        if as_json:
            print_json({"run": made.name, "path": str(made.path), "origin": origin, "next": command})
        return
    if has_own_ranks(made.recipe):
        words = ["resume", str(made.path), *["--json"] * as_json]
        tell_ranks(run_ranks(made.recipe, words))
        return
    train_here(made.recipe, Options(runs=made.path.parent, resume=made), as_json=as_json)

"""The command that writes the second version of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import Json, RunName, Runs, parse_new_file
from etude.cli.printing import print_rows
from etude.errors import InputError


def improve_run(
    run: RunName,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=parse_new_file, metavar="FILE", help="default: NAME-v2.toml"),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a second version of a run's recipe by what its watch found, and the strategy behind it."""
    from etude import durable
    from etude.improve import improve
    from etude.recipe.toml import toml_text
    from etude.records.folder import as_argument
    from etude.records.store import open_run

    found = open_run(run, runs)
    better = improve(found, out)
    recipe = out or parse_new_file(f"{better.recipe.name}.toml")
    strategy = parse_new_file(str(recipe.with_suffix(".strategy.md")))
    try:
        durable.write_new_files({
            strategy: better.strategy.encode("utf-8", "backslashreplace"), recipe: better.text.encode(),
        })  # fmt: skip
    except FileExistsError as error:
        raise InputError(f"{error.filename} is there already; give another file with --out") from None
    rows = [
        ("recipe", str(recipe)), ("strategy", str(strategy)),
        *((key, f"{toml_text(better.changes[key])}, {reason}") for key, reason in better.reasons.items()),
        ("next", f"etude train {recipe}"),
        ("", f"etude compare {as_argument(found.path)} {better.recipe.name}"),
    ]  # fmt: skip
    values = {
        "recipe": str(recipe), "strategy": str(strategy), "changes": better.changes,
    }  # fmt: skip
    print_rows(rows, values, as_json)

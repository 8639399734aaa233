"""The recipes that come with etude: a list of them, the text of one, and a copy to begin with."""

import difflib
import os
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.options import Json, parse_output
from etude.cli.printing import print_json, print_rows, print_text, say
from etude.durable import write_file
from etude.errors import InputError
from etude.text import command


def complete_name(incomplete: str) -> list[str]:
    """Names of the recipes that begin so."""
    return [name for name in shipped_recipes() if name.startswith(incomplete)]


RecipeName = Annotated[
    str, typer.Argument(help="name of a recipe", metavar="NAME", autocompletion=complete_name)
]


def list_recipes(ctx: typer.Context, as_json: Json = False) -> None:
    """List the recipes that come with etude, show one, or copy it to begin with."""
    if ctx.invoked_subcommand is not None:
        return
    subjects = {name: _subject(path) for name, path in shipped_recipes().items()}
    print_rows(list(subjects.items()), subjects, as_json)
    if not as_json:
        say("etude recipes show NAME prints one, etude recipes copy NAME writes it into this folder")


def show_recipe(name: RecipeName) -> None:
    """Print a recipe that comes with etude."""
    print_text(shipped_recipe(name).read_text("utf-8"), end="")


def copy_recipe(
    name: RecipeName,
    out: Annotated[
        Path | None,
        typer.Argument(
            parser=parse_output, help="file or folder to write to (default: NAME.toml here)", metavar="[OUT]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe that comes with etude into a file of your own."""
    content, file = shipped_recipe(name).read_bytes(), f"{name}.toml"
    path = Path(file) if out is None else out / file if out.is_dir() else out
    if os.path.lexists(path):
        raise InputError(f"{path} is there already; give another file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path} lies in no folder; give a file in a folder that is there")
    write_file(path, content)
    if as_json:
        print_json({"recipe": str(path)})
    else:
        check = ("sweep", "plan") if b"[[tiers]]" in content else ("check",)
        print_rows([("recipe", str(path)), ("next", command("etude", *check, path))])


def shipped_recipes() -> dict[str, Path]:
    """Files of the recipes by name: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "recipes", package.parent / "recipes"):
        if found := {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda each: each.stem)}:
            return found
    return {}


def shipped_recipe(name: str) -> Path:
    """The file of a recipe. Raises: InputError with the nearest name if there is none."""
    found = shipped_recipes()
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name[:100], found, n=1)
    advice = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"no recipe {name[:100]} comes with etude; {advice}see etude recipes")


def _subject(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with."""
    lines = path.read_text("utf-8").splitlines()
    comment = lines[: next((at for at, line in enumerate(lines) if not line.startswith("# ")), len(lines))]
    return " ".join(line.removeprefix("# ") for line in comment).partition(". ")[0].rstrip(".")

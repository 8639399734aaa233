"""The arguments and options that commands share, and the checks of paths and names given in them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.completion import complete_override, complete_run
from etude.control.ranks import read_place
from etude.durable import check_name
from etude.errors import InputError

if TYPE_CHECKING:
    from etude.recipe.schema import Recipe

_LONGEST_MADE = 200  # bytes: a hidden name beside it, with a process number, has to fit too


def parse_path(text: str) -> Path:
    """A path of the command line. Raises: InputError if no file can have that name."""
    check_name(text)
    return Path(text)


def parse_folder(text: str) -> Path:
    """A folder that is there or can be made. Raises: InputError."""
    if (path := parse_path(text)).exists() and not path.is_dir():
        raise InputError(f"{path} is not a folder; give another")
    return path


def parse_output(text: str) -> Path:
    """A path to write, which lies in no run folder. Raises: InputError."""
    from etude.records.folder import require_outside_runs

    path = parse_path(text)
    if len(os.fsencode(path.name)) > _LONGEST_MADE:
        raise InputError(f"{path} is a longer name than can be written; give a shorter one")
    require_outside_runs(path)
    return path


def parse_output_folder(text: str) -> Path:
    """A folder to write into, which lies in no run folder. Raises: InputError."""
    parse_folder(text)
    return parse_output(text)


def parse_new_file(text: str) -> Path:
    """A file to write into a folder that is there. Raises: InputError."""
    parse_output(text)
    if (path := parse_path(text)).is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} is a folder, or lies in none; give a file in a folder that is there")
    return path


def require_other(out: Path | None, *read: Path) -> None:
    """Raises: InputError if a file to write is one that the command reads, under any name."""
    for path in read:
        if out is not None and path.exists() and out.exists() and path.samefile(out):
            raise InputError(f"{out} is read by this command, and would be lost; give another file to write")


def parse_name(text: str) -> str:
    """The name or path of a run or model. Raises: InputError if it can be neither."""
    check_name(text)
    return text


def load(path: Path, overrides: list[str] | None, devices: int | None) -> "Recipe":
    """The recipe of a command; among ranks its devices are their number."""
    from etude.recipe.load import load_recipe

    place = read_place()
    if place.size > 1 and devices not in (None, place.size):
        started = f"{place.size} ranks were started (WORLD_SIZE)"
        raise InputError(f"--devices is {devices}, but {started}; leave one out")
    ranks = place.size if place.size > 1 else devices
    return load_recipe(path, [*(overrides or []), *([f"train.devices={ranks}"] if ranks else [])])


RecipePath = Annotated[
    Path, typer.Argument(parser=parse_path, help="a recipe file", metavar="RECIPE", show_default=False)
]
New = Annotated[bool, typer.Option("--new", help="start a run even if one is unfinished")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="changes such as optim.learning_rate=2e-4",
        metavar="[KEY=VALUE]...",
        autocompletion=complete_override,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        parser=parse_name,
        help="a run: folder, id, start of an id, or recipe name",
        metavar="RUN",
        autocompletion=complete_run,
    ),
]
Runs = Annotated[
    Path, typer.Option("--runs", parser=parse_folder, metavar="PATH", help="folder that holds the runs")
]
Guarded = Annotated[
    bool, typer.Option("--guard", help="start a process beside the run that tells if it dies or hangs")
]
Restarts = Annotated[
    int, typer.Option("--restart", min=0, max=1000, help="let the guard start a dead run again so often")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
JsonLines = Annotated[bool, typer.Option("--json", help="print each record as a line of JSON, as it comes")]

"""The command for the results of a sweep, while it runs and when it has ended."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.options import Json, parse_folder, parse_output_folder, parse_path
from etude.cli.printing import print_json, print_rows, print_table, say
from etude.cli.sweep import SweepFolderPath, default_folder
from etude.durable import check_own_folder
from etude.errors import InputError
from etude.text import command, shorten

if TYPE_CHECKING:
    from etude.sweep.decisions import Decisions
    from etude.sweep.deliverables import Deliverables
    from etude.sweep.folder import SweepFolder
    from etude.sweep.grid import Sweep


def report(
    sweep: Annotated[
        Path,
        typer.Argument(
            parser=parse_path, help="a sweep file, or a sweep folder", metavar="SWEEP", show_default=False
        ),
    ],
    folder: SweepFolderPath = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs", parser=parse_folder, metavar="PATH",
            help="folder that holds the runs of its trials (default: `runs` in the sweep folder)",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=parse_output_folder, metavar="PATH",
            help="folder for report.md, report.json and charts (default: `report` in the sweep folder)",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write the results of a sweep so far: best configurations, benchmarks, resources and recommendations."""
    from etude.records.store import read_runs
    from etude.sweep.cells import find_runs_of
    from etude.sweep.deliverables import make_deliverables
    from etude.sweep.reporter import DAMAGED, NOTE
    from etude.sweep.sections import result_rows, standing_rows
    from etude.sweep.write import write_deliverables

    loaded, place, decided = _open(sweep, folder)
    if runs is not None and not runs.is_dir():
        raise InputError(f"--runs is {runs}, which is no folder; give the one that holds the runs")
    if not place.path.is_dir() and (out is None or runs is None):
        raise InputError(
            f"{place.path} is no folder of a sweep; give its --folder, or begin with "
            f"{command('etude', 'sweep', 'run', sweep)}"
        )
    made = make_deliverables(loaded, partial(find_runs_of, runs=runs or place.runs), decided)
    if as_json:
        print_json(made.to_dict())
    else:
        print_rows(result_rows(made))
        print_table(standing_rows(made))
    if out is None:
        check_own_folder(place.path / "report")  # it may be a link in a folder of a stranger
    if out is not None or not as_json:
        say(f"written to {write_deliverables(made, out or place.path / 'report')}")
    if out is None and not as_json:
        _copy_studies(made)
    for problem in [*made.doubts, *read_runs(runs or place.runs)[1].values()]:
        say(f"{NOTE}{shorten(problem, 400)}")
    for name, what in made.damaged.items():
        say(f"{DAMAGED}{name}: {what}; without its run folder, etude sweep run trains it again")
    if made.damaged:
        raise typer.Exit(1)


def _open(sweep: Path, folder: Path | None) -> "tuple[Sweep, SweepFolder, Decisions]":
    """The sweep of a file or folder with the trials that it has, its folder, and what it decided."""
    from etude.sweep.begun import read_begun
    from etude.sweep.decisions import Decisions
    from etude.sweep.folder import SweepFolder
    from etude.sweep.grid import load_sweep
    from etude.sweep.reporter import NOTE
    from etude.sweep.search import with_found

    if sweep.is_dir():
        if folder is not None:
            raise InputError(f"{sweep} is a sweep folder already; leave --folder out")
        if not (sweep / "sweep.toml").exists():
            raise InputError(
                f"{sweep} is no sweep folder, as it has no sweep.toml; give one, or a sweep file"
            )
        place = SweepFolder(sweep)
        decided = Decisions.read(place.path)
        loaded = read_begun(place, decided, lambda problem: say(f"{NOTE}{problem}"))
    else:
        loaded = load_sweep(sweep)
        place = SweepFolder(folder or default_folder(loaded.file.name))
        decided = Decisions.read(place.path)
        loaded = with_found(loaded, decided.found)
    if not loaded.trials:
        raise InputError(
            f"{place.path} has no trials yet; begin with {command('etude', 'sweep', 'run', sweep)}"
        )
    return loaded, place, decided


def _copy_studies(made: "Deliverables") -> None:
    """Copy the searches to the database that the sweep names; the report is whole without it."""
    from etude.sweep.reporter import NOTE
    from etude.sweep.studies import copy_studies

    studies = made.sweep.studies
    if studies and (url := studies[0].search.storage):
        try:
            copy_studies(made, url)
        except InputError as error:
            say(f"{NOTE}{error}")

"""The room that runs take, and its return."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.options import RunName, Runs
from etude.cli.printing import print_json, print_table, say
from etude.errors import InputError
from etude.text import rough_size

if TYPE_CHECKING:
    from etude.records.store import Run


def print_room(runs: list["Run"], *, as_json: bool) -> None:
    """Print the bytes of each run, and what of them can be removed."""
    from etude.records.room import measure_room

    rooms = {run.name: measure_room(run) for run in runs}
    if as_json:
        named = [{f"{key}_bytes": size for key, size in vars(room).items()} for room in rooms.values()]
        print_json(dict(zip(rooms, named)))
        return
    rows = [
        [name, *(rough_size(size) for size in (room.checkpoints, room.removable, room.records))]
        for name, room in rooms.items()
    ]
    print_table([["run", "weights", "of it not the best", "records"], *rows])


def remove_run(
    run: RunName,
    runs: Runs = Path("runs"),
    everything: Annotated[bool, typer.Option("--all", help="the best and the record too")] = False,
    weights: Annotated[bool, typer.Option("--keep-record", help="the best too, but not the record")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove the checkpoints of a run but its best, and keep its record."""
    from etude.records.room import measure_room, remove
    from etude.records.store import open_run

    if everything and weights:
        raise InputError("--all removes the record, and --keep-record keeps it; give one of them")
    found = open_run(run, runs)
    room = measure_room(found)
    taken = room.removable if not (everything or weights) else room.checkpoints + room.records * everything
    what = "all" if everything else "all weights" if weights else "all weights but the best"
    unfinished = ", which is not finished and goes on with what is left" * (
        found.is_unfinished and not everything
    )
    if not yes:
        say(f"remove {what} of run {found.path}{unfinished} ({rough_size(taken)})? type yes")
        if sys.stdin.readline().strip() != "yes":
            raise InputError("nothing was removed; type yes, or give --yes")
    freed = remove(found, weights=weights, everything=everything)
    say(f"{rough_size(freed)} of {found.path} removed")

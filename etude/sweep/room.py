"""The room that a sweep takes on its disk: records and kept checkpoints of all trials.

Each trial is a run of its own, which keeps its checkpoints; a trunk that others share is one of them, and
counts once. A fork begins with copies of at most two checkpoints, which make way for its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from etude.errors import InputError
from etude.plan import Plan
from etude.plan.disk import require_room
from etude.plan.forecast import assume_costs, checkpoint_bytes, forecast
from etude.report.summary import size_on_disk
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep


@dataclass(frozen=True)
class Room:
    """Bytes of a run: at its end, and of a checkpoint that is being written beside them."""

    run: int
    checkpoint: int


def foresee_room(plan: Plan, step_seconds: float) -> Room:
    """The room of the run of a plan."""
    made = forecast(plan, assume_costs(plan, step_seconds, 0))
    return Room(made.disk_bytes, checkpoint_bytes(plan))


def room_parts(
    rooms: Mapping[str, Room],
    *,
    seeds: int,
    places: int = 1,
    more: int = 0,
    there: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """Bytes that are to come by what they are, at most.

    seeds   trainings of the best again
    places  trials that are trained at once
    more    trials that searches are still to choose, each as large as those that are known
    there   bytes of each trial that are on disk already; all that a finished one takes
    """
    left = {name: max(room.run - there.get(name, 0), 0) for name, room in rooms.items()}
    runs = [room.run for room in rooms.values()]
    being_written = min(places, sum(size > 0 for size in left.values()) + more)
    return {
        "trials": sum(left.values()) + more * sum(runs) // max(len(runs), 1),
        "new seeds of the best": seeds * max(runs, default=0),
        "checkpoints being written": being_written
        * max((each.checkpoint for each in rooms.values()), default=0),
    }


def check_room(
    sweep: Sweep, folder: SweepFolder, rooms: Mapping[str, Room], *, seeds: int, places: int, more: int
) -> str:
    """Check that the disk of a sweep folder holds what is to come; "" or a sentence if it may not hold all.

    Raises: InputError if it does not, and neither a budget nor rungs may leave trials out.
    """
    states = folder.read([trial for trial in sweep.trials if trial.name in rooms])
    there = {
        name: rooms[name].run if state.is_finished else size_on_disk(state.run)
        for name, state in states.items()
    }
    parts = room_parts(rooms, seeds=seeds, places=places, more=more, there=there)
    short = shortage(parts, folder.path)
    if short and sweep.file.budget.seconds is None and sweep.file.halving is None:
        raise InputError(short)
    return f"note      {short}" if short else ""


def shortage(parts: Mapping[str, int], folder: Path) -> str:
    """A sentence if the disk of a folder does not hold these parts; else ""."""
    try:
        require_room(parts, folder, "the sweep")
    except InputError as error:
        return str(error)
    return ""

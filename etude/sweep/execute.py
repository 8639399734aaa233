"""A sweep from its file on: what was decided before, its trials measured, and then the controller.

torch is imported once the starter of the trials loads it too, so that both are done at once.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from etude.sweep.decisions import Decisions
from etude.sweep.executor import open_processes
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep
from etude.sweep.outcome import Outcome
from etude.sweep.repeats import repeats_of
from etude.sweep.search import Searches, with_found


def run_sweep(
    sweep: Sweep, folder: SweepFolder, path: Path, tell: Callable[[str], None], *, accept: bool = False
) -> Outcome:
    """Train the trials of a sweep that are not finished; `tell` is given a line for each that starts or ends.

    Raises: InputError if another process holds the folder, or the sweep is another one than it was begun for.
    """
    with folder.hold():
        decisions, given = Decisions.read(folder.path), len(sweep.trials)
        sweep = with_found(sweep, decisions.found)
        again = repeats_of(sweep, decisions.best)
        sweep = replace(sweep, trials=(*sweep.trials, *again))
        added = decisions.added.union(trial.name for trial in sweep.trials[given:])
        for change in folder.write(sweep, added=added, accept=accept):
            tell(f"changed since the sweep was begun: {change}")
        for doubt in decisions.doubts([trial.name for trial in sweep.trials]):
            tell(f"note: {doubt}")
        searches = Searches(sweep, folder, decisions, tell)
        sweep = replace(sweep, trials=(*sweep.trials, *searches.choose(1, ())))
        with open_processes(sweep, folder, tell) as processes:
            from etude.sweep.controller import Controller
            from etude.sweep.measure import measure
            from etude.sweep.room import check_room
            from etude.sweep.tree import build_tree

            measured = measure(sweep)
            tree = build_tree([each for each in measured.planned if each.trial.name not in measured.problems])
            processes.are_known = {stage.name for stage in tree.stages} <= measured.memory.keys()
            rooms = {name: room for name, room in measured.rooms.items() if name not in measured.problems}
            seeds = 0 if again or len(sweep.trials) < 2 else sweep.file.repeats.seeds
            places, more = sum(each.at_once for each in processes.devices), sum(searches.left.values())
            if note := check_room(sweep, folder, rooms, seeds=seeds, places=places, more=more):
                tell(note)
            controller = Controller(
                sweep, folder, path, measured, tree, processes, searches=searches, tell=tell
            )
            with controller.signals():
                return controller.run()

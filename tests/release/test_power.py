"""Whatever a power failure leaves of a run is its new or its previous state, and the run goes on from there."""

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from etude.control.restore import restore
from etude.errors import DamageError, InputError
from etude.recipe.load import load_recipe
from etude.records.store import list_runs
from etude.report.write import write_report
from etude.run import run_recipe
from etude.start import Options
from tests.release.disk import Disk
from tests.release.power import Model, State, digest, torn, write_state
from tests.release.runs import Bits, require_part, require_whole, whole_bits, write_run

IN_PLACE = ("journal.jsonl", "log.txt", "control.jsonl", "outbox.jsonl")
_SAVED = re.compile(rb'"type": "checkpoint", "step": ([0-9]+)')


@dataclass
class Attacked:
    """A run whose disk lost its power, `tried` and `trained` to its end so often."""

    folder: Path
    whole: Bits
    tried: int = 0
    trained: int = 0

    def survives(self, disk: Path, state: State, saved: int, *, is_trained: bool) -> None:
        """Take a state for what a disk comes back with, read it, and train it to its end."""
        shutil.rmtree(disk)
        write_state(disk, state)
        require_part(disk / "runs", self.whole, saved)
        self.tried += 1
        if (disk / "mirror").exists() and restored(disk / "mirror", self.folder / "restored"):
            require_part(self.folder / "restored", self.whole)
            shutil.rmtree(self.folder / "restored")
        if is_trained:
            found = list_runs(disk / "runs") if (disk / "runs").exists() else []
            for run in found:
                write_report(run)  # whatever there is can be told
            if any(run.state == "finished" for run in found):
                return
            run_recipe(load_recipe(self.folder / "recipe.toml"), Options(runs=disk / "runs"))
            require_whole(disk / "runs", self.whole)
            self.trained += 1


def test_a_run_survives_a_power_failure_after_any_of_its_calls(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_release, disk = request.config.getoption("--release"), tmp_path / "disk"
    recipe = write_run(tmp_path, disk / "mirror")
    attacked = Attacked(tmp_path, whole_bits(recipe, tmp_path / "whole"))
    disk.mkdir()
    with Disk(disk) as trace:
        run_recipe(recipe, Options(runs=disk / "runs"))
    model, seen, saved = Model(disk), set[bytes](), 0
    some = random.Random(1).sample(range(len(trace.calls)), 12)
    for number, call in enumerate(trace.calls):
        model.make(call)
        saved = max([saved, *map(int, _SAVED.findall(call.data if "journal" in call.path else b""))])
        if not (is_release or number in some):
            continue
        states = {digest(state): (name, state) for name, state in model.states(number)}
        new = [states[key] for key in states.keys() - seen]
        seen |= states.keys()
        trained = (
            random.Random(number).randrange(len(new))
            if new and number % (1 if is_release else 3) == 0
            else -1
        )
        for index, (name, state) in enumerate(new):
            try:
                assert not (found := torn(state, model.versions, IN_PLACE)), found
                attacked.survives(disk, state, saved, is_trained=index == trained)
            except BaseException as error:
                error.add_note(f"after call {number} of {len(trace.calls)}, {call.name} {call.path}: {name}")
                raise
    print(f"\n{len(trace.calls)} calls, {attacked.tried} states, {attacked.trained} trained to the end")


def restored(mirror: Path, runs: Path) -> bool:
    """Make a run again from a mirror; False if that says in one line that no copy is whole."""
    try:
        restore(str(mirror), runs)
    except (DamageError, InputError) as error:
        assert "\n" not in str(error)
        return False
    return True

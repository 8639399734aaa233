"""A command that is killed, or failed by its disk, at any of its calls says so in one line, and the same command
then ends as if nothing had been. Nothing half-written is taken for whole on the way.

`make test` tries a call of each fault, `make release-check` all.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.run import run_recipe
from etude.start import Options
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from tests.bases import write_corpus
from tests.forking import Server
from tests.release.attack import Attack
from tests.release.disk import FAULTS
from tests.release.runs import require_part, require_whole, whole_bits, write_run
from tests.sweeps import make

QUICK = [("run", fault) for fault in FAULTS] + [("resume", "kill"), ("sweep", "kill"), ("sweep", "full")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("tests.release.armed") as server:
        yield server


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory, server: Server) -> dict[str, Attack]:
    """The attacks that were made ready so far."""
    return {}


def attack_on_run(folder: Path, server: Server) -> Attack:
    """A run that saves at each step, and is mirrored."""
    recipe = write_run(folder, folder / "disk" / "mirror")
    whole = whole_bits(recipe, folder / "whole")
    (folder / "start").mkdir()
    return Attack(
        folder, ["train", "recipe.toml", "--runs", "disk/runs"],
        lambda disk: require_part(disk / "runs", whole),
        lambda disk, is_told: require_whole(disk / "runs", whole, is_told=is_told),
    )  # fmt: skip


def attack_on_resume(folder: Path, server: Server) -> Attack:
    """The same run, that was killed while it saved its third checkpoint."""
    attack = attack_on_run(folder, server)
    attack.count(server)
    third = [at for at, call in enumerate(attack.calls) if "step-000003/.state" in call.path]
    server.run(
        folder, attack.words, seconds=600, environment={"ETUDE_CACHE": str(folder / "cache")},
        first=f"from tests.release.armed import arm; arm('disk', {third[0]}, 'kill', 'told')",
    )  # fmt: skip
    shutil.rmtree(folder / "disk" / "mirror")
    shutil.rmtree(folder / "start")
    shutil.copytree(folder / "disk", folder / "start")
    return attack


def attack_on_sweep(folder: Path, server: Server) -> Attack:
    """The controller of a sweep whose trials have ended, from its first file to its report."""
    path = make(folder, write_corpus(folder / "corpus.jsonl"), {"train.steps": [1, 2]}, {"model.n_layer": 1})
    place, sweep = SweepFolder(folder / "start" / "place"), load_sweep(path)
    for trial in sweep.trials:
        run_recipe(trial.recipe, Options(runs=place.runs, has_report=False))
    runs = _contents(place.runs)

    def has_part(disk: Path) -> None:
        assert _contents(disk / "place" / "runs") == runs
        for file in (disk / "place").rglob("*.json"):
            json.loads(file.read_text())

    def has_whole(disk: Path, is_told: bool) -> None:
        has_part(disk)
        found = SweepFolder(disk / "place").read(sweep.trials)
        assert all(state.is_finished for state in found.values()) and len(found) == len(sweep.trials)
        assert not is_told or (disk / "place" / "report" / "report.md").is_file()

    words = ["sweep", "run", "sweep.toml", "--folder", "disk/place"]
    return Attack(folder, words, has_part, has_whole)


READY = {"run": attack_on_run, "resume": attack_on_resume, "sweep": attack_on_sweep}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name in READY for fault in FAULTS])
def test_a_command_survives_a_fault_at_any_of_its_calls(
    name: str, fault: str, attacks: dict[str, Attack], server: Server, tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    is_release = request.config.getoption("--release")
    if not is_release and (name, fault) not in QUICK:
        pytest.skip("make release-check tries it")
    if name not in attacks:
        attacks[name] = READY[name](tmp_path_factory.mktemp(name), server)
        attacks[name].count(server)
    attack = attacks[name]
    points = list(attack.points(fault))
    tried = points if is_release else random.Random(fault).sample(points, 1)
    met = sum(attack.survives(server, at, fault) for at in tried)
    print(f"\n{name}, {fault}: {met} of {len(points)} points among {len(attack.calls)} calls")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""The controller is killed, finds stages that outlived it, and stops all by a signal: nothing is made twice."""

import os
import signal
import subprocess
from pathlib import Path

from etude.records.folder import list_checkpoints
from etude.records.store import Run, list_runs
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from tests.forking import server
from tests.processes import wait_for
from tests.sweeps import attempts, execute, make, require_equal


def test_killed_controller_and_stage_and_the_same_command_again(tmp_path: Path, corpus: Path) -> None:
    steps = 60
    path = make(tmp_path, corpus, {"train.steps": [40, steps]})
    place, sweep = tmp_path / "place", load_sweep(path)
    words = ["sweep", "run", str(path), "--folder", str(place)]
    controller = server().etude(words, stderr=subprocess.DEVNULL)

    def begun() -> Run | None:
        found = (
            [run for run in list_runs(place / "runs") if list_checkpoints(run.checkpoints)]
            if place.exists()
            else []
        )
        return found[0] if found else None

    run = wait_for(begun)
    controller.kill()
    controller.wait()
    os.kill(run.lease["pid"], signal.SIGKILL)
    wait_for(lambda: run.state in ("killed", "stopped"))
    assert execute(path, place).finished == 2
    assert len(attempts(run)) >= 2 and attempts(run)[-1] > 0
    require_equal(sweep, place, tmp_path / "alone")


def test_a_stage_that_outlives_its_controller_is_waited_for(tmp_path: Path, corpus: Path) -> None:
    path, told = make(tmp_path, corpus, {"train.steps": [120]}), list[str]()
    place, sweep = tmp_path / "place", load_sweep(path)
    folder = SweepFolder(place)
    with folder.hold():
        folder.write(sweep)
    recipe = folder.recipe(sweep.trials[0].name)
    words = ["sweep", "stage", str(recipe), "--runs", str(folder.runs)]
    stage = server().etude(words, stderr=subprocess.DEVNULL)
    wait_for(lambda: list_runs(folder.runs))
    assert execute(path, place, told).finished == 1 and stage.wait() == 0
    assert any("was started before" in line for line in told) or told[0].startswith("1 trial, 1 finished")
    assert len(list_runs(folder.runs)) == 1


def test_a_signal_stops_all_and_the_same_command_goes_on(tmp_path: Path, corpus: Path) -> None:
    path, place = make(tmp_path, corpus, {"train.steps": [400]}), tmp_path / "place"
    words = ["sweep", "run", str(path), "--folder", str(place)]
    controller = server().etude(words, stderr=subprocess.PIPE, text=True)
    wait_for(
        lambda: place.exists() and any(list_checkpoints(run.checkpoints) for run in list_runs(place / "runs"))
    )
    controller.terminate()
    _, err = controller.communicate()
    assert controller.returncode == 75 and "the same command goes on" in err
    assert "stopping  1 trial," in err and "; it goes on from step " in err and "broken" not in err
    (run,) = list_runs(place / "runs")
    assert run.state == "stopped"

"""A sweep on a Ray cluster of two nodes: workers, a node and the controller die, and every trial is as alone."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from etude.errors import InputError
from etude.processes import python_command, python_environment
from etude.records.folder import list_checkpoints
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.decisions import Decisions
from etude.sweep.dispatch import Device, Lost
from etude.sweep.execute import run_sweep
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.local import Exit
from etude.sweep.ray import RayProcesses, join_cluster
from etude.sweep.schema import Resources
from tests.processes import wait_for
from tests.sweeps import command_of, sweep_values, write_sweep

STORE = 80 * 2**20
CHANGES = {"schedule.kind": "constant", "model.dropout": 0.1, "checkpoint.every_steps": 4}


@pytest.fixture(scope="module")
def cluster(cache: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else other tests on the machine go first
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(folder for folder in sys.path if folder))
        patch.setenv("ETUDE_CACHE", str(cache))
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False},
        )
        yield cluster
        cluster.shutdown()


def make(
    folder: Path,
    corpus: Path,
    cluster: Cluster,
    grid: dict[str, list[Any]],
    more: dict[str, Any] | None = None,
) -> Path:
    resources = {"at_once": 1, "executor": "ray", "address": cluster.address}
    values = {**sweep_values(corpus, grid, CHANGES), "resources": resources}
    return write_sweep(folder / "sweep.toml", values, more)


def begun(runs: Path) -> list[Run]:
    """The runs that are being trained and have saved a step."""
    there = list_runs(runs) if runs.exists() else []
    return [run for run in there if run.state == "running" and list_checkpoints(run.checkpoints)]


def weights(run: Run) -> dict[str, bytes]:
    last = list_checkpoints(run.checkpoints)[-1]
    return {path.name: path.read_bytes() for path in last.glob("*.safetensors")}


def workers_that_train() -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if " ".join(command_of(each)).startswith("ray::net-")]


def starters_of(runs: list[Run]) -> Iterator[psutil.Process]:
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if starter := psutil.Process(run.lease["pid"]).parent():
                yield starter


class Chaos:
    """Kills what lines of the controller call for: a worker of Ray, the starter of a node, the second node."""

    def __init__(self, runs: Path, cluster: Cluster, node: Any) -> None:
        self.runs, self.cluster, self.node = runs, cluster, node
        self.told: list[str] = []
        self.killed: list[str] = []

    def tell(self, line: str) -> None:
        self.told.append(line)
        if line.startswith("starts") and "worker" not in self.killed:
            self.killed.append("worker")
            wait_for(lambda: begun(self.runs))
            workers_that_train()[0].kill()
        elif line.startswith("lost") and "starter" not in self.killed:
            self.killed.append("starter")
            wait_for(lambda: next(starters_of(begun(self.runs)), None)).kill()
        elif line.startswith("finished") and "node" not in self.killed:
            self.killed.append("node")
            self.cluster.remove_node(self.node, allow_graceful=False)


def test_trials_survive_the_controller_a_worker_and_a_node_and_equal_trials_alone(
    tmp_path: Path, corpus: Path, cluster: Cluster
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    grid = {"optim.learning_rate": [1e-3, 2e-3], "train.steps": [20, 30]}
    path, place = make(tmp_path, corpus, cluster, grid), tmp_path / "place"
    words = ["sweep", "run", str(path), "--folder", str(place)]
    controller = subprocess.Popen(
        python_command("etude", *words), env=python_environment(), stderr=subprocess.DEVNULL
    )
    run = wait_for(lambda: begun(place / "runs"))[0]
    pid = run.lease["pid"]
    controller.kill()
    controller.wait()
    wait_for(lambda: not psutil.pid_exists(pid))  # a stage ends with its controller
    chaos, sweep = Chaos(place / "runs", cluster, node), load_sweep(path)
    ended = run_sweep(sweep, SweepFolder(place), path, chaos.tell)
    assert (ended.finished, ended.trials, ended.given_up) == (4, 4, {})
    assert sorted(chaos.killed) == ["node", "starter", "worker"] and not ray.is_initialized()
    lost = [line.split(":")[0] for line in chaos.told if line.startswith("lost      ")]
    assert len(lost) >= 2 and any(" " in line.removeprefix("lost      ") for line in lost)
    for trial, state in zip(sweep.trials, SweepFolder(place).read(sweep.trials).values(), strict=True):
        assert state.is_finished, trial.name
    alone = run_recipe(sweep.trials[0].recipe, Options(runs=tmp_path / "alone")).run
    state = SweepFolder(place).read(sweep.trials)[sweep.trials[0].name]
    assert weights(state.run) == weights(alone)


def test_trials_pause_at_rungs_on_nodes_and_the_best_goes_on_as_if_alone(
    tmp_path: Path, corpus: Path, cluster: Cluster
) -> None:
    halving = {"halving.steps": [4], "halving.reduction_factor": 2, "recipe.train.steps": 8}
    path = make(tmp_path, corpus, cluster, {"optim.learning_rate": [1e-5, 1e-2]}, halving)
    sweep, folder, told = load_sweep(path), SweepFolder(tmp_path / "place"), list[str]()
    ended = run_sweep(sweep, folder, path, told.append)
    assert (ended.finished, ended.censored, ended.given_up) == (1, 1, {})
    assert [(each.step, each.of) for each in Decisions.read(folder.path).came] == [(4, 1), (4, 2)]
    worse, best = sweep.trials
    states = folder.read(sweep.trials)
    assert states[best.name].is_finished and states[worse.name].steps == 4
    alone = run_recipe(best.recipe, Options(runs=tmp_path / "alone")).run
    assert weights(states[best.name].run) == weights(alone)


@pytest.fixture
def processes(tmp_path: Path, cluster: Cluster) -> Iterator[RayProcesses]:
    folder = SweepFolder(tmp_path / "place")
    with (
        folder.hold(),
        join_cluster(Resources(executor="ray", address=cluster.address), folder, print) as found,
    ):
        yield found


def poll_until(processes: RayProcesses, kind: type) -> Any:
    def look() -> list[Any]:
        return [event for event in processes.poll() if isinstance(event, kind)]

    return wait_for(look)[0]


def test_a_signal_reaches_a_process_on_a_node_which_saves_and_stops(
    tmp_path: Path, corpus: Path, cluster: Cluster, processes: RayProcesses
) -> None:
    sweep = load_sweep(make(tmp_path, corpus, cluster, {"train.steps": [4000]}))
    folder = SweepFolder(tmp_path / "place")
    folder.write(sweep)
    name = sweep.trials[0].name
    words = ["sweep", "stage", str(folder.recipe(name)), "--runs", str(folder.runs)]
    (device,) = processes.devices
    processes.start(name, device, words, folder.log(name))
    (run,) = wait_for(lambda: begun(folder.runs))
    processes.signal(signal.SIGTERM)
    assert poll_until(processes, Exit) == Exit(name, 75)
    assert run.state == "stopped"


def test_a_process_that_ray_ends_for_want_of_memory_is_told_once_and_not_started_again(
    tmp_path: Path,
    cluster: Cluster,
    processes: RayProcesses,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endless = write_recipe({"train.steps": 1_000_000})
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    try:
        wait_for(lambda: processes.poll() or "for want of memory" in capsys.readouterr().out)
        device = Device("small")
        processes._node_of["small"] = node.node_id
        processes._nodes[node.node_id].devices = [device]
        words = ["train", str(endless), "--runs", str(tmp_path / "runs")]
        processes.start("one", device, words, tmp_path / "log")
        reason = "ended by Ray for want of memory on its node"
        assert poll_until(processes, Exit) == Exit("one", -signal.SIGKILL, reason)
    finally:
        cluster.remove_node(node, allow_graceful=False)
    assert poll_until(processes, Lost) == Lost(device.name)
    assert processes.poll() == []


def test_without_ray_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(InputError, match=r'pip install "etude-workbench\[ray\]"'),
        join_cluster(Resources(executor="ray"), SweepFolder(tmp_path), print),
    ):
        pass


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path / "place")
    given = Resources(executor="ray", address="127.0.0.1:9")
    with (
        folder.hold(),
        pytest.raises(InputError, match=r"no Ray cluster answers at 127.0.0.1:9 "),
        join_cluster(given, folder, print),
    ):
        pass


def test_each_gpu_of_a_node_is_a_device_and_its_memory_is_shared_in_equal_parts() -> None:
    from etude.sweep.ray import _devices

    given = _devices("a", {"CPU": 16.0, "GPU": 2.0}, 80_000_000_000, Resources(at_once=2))
    assert given == [Device(f"a gpu {number}", 1, 38_000_000_000) for number in range(4)]
    assert _devices("b", {"CPU": 8.0, "memory": 5e9}, 0, Resources()) == [Device("b", 4, 5_000_000_000)]

"""The sweep of 72 tiny trials on a Ray cluster of two nodes, under kills of workers, a node and the controller.

    python benchmarks/sweep_ray.py --data FOLDER [--every 5] [--controllers 20] [--nodes 2] [--tiers 3]

FOLDER as for sweep_real.py. A worker of Ray that trains is killed every few seconds until the end; trials drawn by lot are trained alone afterwards.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch
from measure import FOLDER, write_result

sys.path.insert(0, str(FOLDER.parent))
import tomlkit
from sweep_real import ETUDE, _series, _weights, measure_folder
from sweep_shapes import make_sweep

from etude.recipe.load import change
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep, load_sweep
from etude.sweep.measure import measure
from etude.sweep.tree import build_tree

CLAIM = (
    "72 trials on two nodes of Ray end under kills, in 62.5 % of the steps and what was lost, each as alone"
)
STORE = 80 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train, valid and test.jsonl")
    parser.add_argument("--place", type=Path, help="a folder for the sweep (default: a temporary one)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills of workers")
    parser.add_argument("--controllers", type=int, default=20, help="kills of the controller")
    parser.add_argument("--between", type=float, default=25.0, help="seconds between those, at the mean")
    parser.add_argument("--nodes", type=int, default=2, help="kills of the second node")
    parser.add_argument("--at-once", type=int, default=1, help="trials at once on a node")
    parser.add_argument("--tiers", type=int, default=3, help="tiers of the plan, of 16, 24 and 32 trials")
    parser.add_argument("--twins", type=int, default=12, help="trials drawn by lot that are trained alone")
    parser.add_argument("--seed", type=int, default=17)
    asked = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    # All that trains has one thread, as a trial alone does here: sums in another order have other last bits.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in sys.path if folder)
    with tempfile.TemporaryDirectory() as temporary:
        place = asked.place or Path(temporary)
        result = run(asked, place)
        sweep = load_sweep(place / "sweep.toml")
        result |= measure_folder(sweep, SweepFolder(place / "ray"))
        tree = build_tree(measure(sweep).planned)
        result |= {
            "trials": len(sweep.trials), "steps_alone": tree.steps_alone, "steps_planned": tree.steps,
            "planned_ratio": round(tree.steps / tree.steps_alone, 4),
            "lost_steps": result["steps_made"] - tree.steps,
            "made_ratio": round(result["steps_made"] / tree.steps_alone, 4),
        }  # fmt: skip
        result |= compare_alone(sweep, place, asked.twins, random.Random(asked.seed))
    write_result("sweep_ray", CLAIM, result, [["figure", "value"], *map(list, result.items())])


def run(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Run the sweep on a cluster of its own until it has ended, and kill on the way."""
    from ray.cluster_utils import Cluster

    shared = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=shared)
    path = make_sweep(place, asked.data, at_once=asked.at_once)
    values = tomlkit.parse(path.read_text()).unwrap()
    values["tiers"] = values["tiers"][: asked.tiers]
    address = {"resources.executor": "ray", "resources.address": cluster.address}
    path.write_text(tomlkit.dumps(change(values, address)))
    draw, killed, started = random.Random(asked.seed), Counter[str](), time.perf_counter()
    pause = asked.controllers // (asked.nodes + 1)  # kills of the controller between those of the node
    names = {trial.name for trial in load_sweep(path).trials}
    words = [*ETUDE, "sweep", "run", str(path), "--folder", str(place / "ray")]
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        with (place / "ray.log").open("a") as log:
            code: int | None = None
            while code is None or code < 0:
                controller = subprocess.Popen(words, stdout=log, stderr=log)
                end = time.perf_counter() + draw.uniform(0.6, 1.4) * asked.between
                while (code := _wait(controller, asked.every)) is None:
                    killed["worker"] += _kill_worker(names, draw)
                    if killed["node"] < asked.nodes and killed["controller"] >= pause * (killed["node"] + 1):
                        cluster.remove_node(node, allow_graceful=False)
                        killed["node"] += 1
                        node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
                    elif killed["controller"] < asked.controllers and time.perf_counter() > end:
                        controller.kill()
                        killed["controller"] += 1
    finally:
        cluster.shutdown()
    seconds = round(time.perf_counter() - started, 1)
    return {
        "exit_code": code,
        "wall_seconds": seconds,
        "seconds_between": asked.every,
        "killed": dict(killed),
    }


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _kill_worker(names: set[str], draw: random.Random) -> int:
    """Kill one of the workers of this cluster that train; the number that was killed."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = (process.cmdline() or [""])[0]
        except psutil.Error:
            continue
        if title.removeprefix("ray::") in names:
            found.append(process)
    if not found:
        return 0
    draw.choice(found).kill()
    return 1


def compare_alone(sweep: Sweep, place: Path, count: int, draw: random.Random) -> dict[str, Any]:
    """Trials drawn by lot, and those whose weights or figures are not those of the trial alone."""
    torch.set_num_threads(1)
    drawn = draw.sample(list(sweep.trials), count)
    states = SweepFolder(place / "ray").read(drawn)
    unequal = []
    for trial in drawn:
        alone = run_recipe(trial.recipe, Options(runs=place / "alone")).run
        run = states[trial.name].run
        mine, theirs = _weights(alone), _weights(run)
        # A fork has the best and the last checkpoint of where it left, its twin the last two.
        shared = mine.keys() & theirs.keys()
        same = max(mine) in shared and all(mine[file] == theirs[file] for file in shared)
        if not same or _series(alone) != _series(run):
            unequal.append(trial.name)
    return {"twins": [trial.name for trial in drawn], "equal": count - len(unequal), "unequal": unequal}


if __name__ == "__main__":
    main()

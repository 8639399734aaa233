"""A real sweep of 72 trials on this machine, quiet and under kills: all trials end, with the same bits.

    python benchmarks/sweep_real.py --data FOLDER [--place FOLDER] [--kills 20]

FOLDER has train.jsonl, valid.jsonl and test.jsonl with `code` and `label`. Each kill is a SIGKILL of the process
of a random trial, of the controller, which the same command then starts again, or of what it forks from.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from measure import FOLDER, write_result

sys.path.insert(0, str(FOLDER.parent))
from sweep_shapes import ROWS, SEQ_LEN, make_sweep

from etude.records.events import Evaluation, Scores, Step, to_json
from etude.records.folder import list_checkpoints
from etude.records.lease import is_locked
from etude.records.store import Run
from etude.report.history import History
from etude.sweep.costs import split_costs
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Sweep, load_sweep

CLAIM = "72 real trials of tiny models: all end, with the same bits after kills, in 62.5 % of the steps"
ETUDE = [sys.executable, "-P", "-m", "etude"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train, valid and test.jsonl")
    parser.add_argument("--place", type=Path, help="a folder for the sweep (default: a temporary one)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between kills, about")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--rows", type=int, default=ROWS, help="for training")
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = asked.place or Path(temporary)
        path = make_sweep(place, asked.data, rows=asked.rows, seq_len=asked.seq_len)
        sweep = load_sweep(path)
        plan = json.loads(subprocess.run(
            [*ETUDE, "sweep", "plan", str(path), "--json"], check=True, capture_output=True
        ).stdout)  # fmt: skip
        quiet = run_quiet(path, place / "quiet")
        quiet |= measure_folder(sweep, SweepFolder(place / "quiet"))
        result: dict[str, Any] = {
            "rows": asked.rows,
            "seq_len": asked.seq_len,
            "plan": {key: plan[key] for key in _OF_PLAN},
            "quiet": quiet,
        }
        if asked.kills:
            result["killed"] = run_killed(path, place / "killed", asked.kills, asked.every, asked.seed)
            result["killed"] |= measure_folder(sweep, SweepFolder(place / "killed"))
            result |= compare(sweep, place / "quiet", place / "killed")
    rows = [["", "quiet", "killed"]]
    for key in quiet:
        rows.append([key, str(quiet[key]), str(result.get("killed", {}).get(key, ""))])
    write_result("sweep_real", CLAIM, result, rows)


_OF_PLAN = ("trials", "trunks", "epochs_alone", "epochs", "steps_alone", "steps", "seconds")


def run_quiet(path: Path, folder: Path) -> dict[str, Any]:
    """Run the sweep once; wall time, and processor time of all its processes."""
    started, before = time.perf_counter(), _cpu_of_children()
    with (path.parent / "quiet.log").open("w") as log:
        done = subprocess.run([*ETUDE, *_words(path, folder)], stdout=log, stderr=log, check=False)
    return {
        "exit_code": done.returncode,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(_cpu_of_children() - before, 1),
    }


def run_killed(path: Path, folder: Path, kills: int, every: float, seed: int) -> dict[str, Any]:
    """Run the sweep while its processes are killed, and start it again until all has ended."""
    draw, killed, started = random.Random(seed), Counter[str](), time.perf_counter()
    with (path.parent / "killed.log").open("w") as log:
        while True:
            controller = subprocess.Popen([*ETUDE, *_words(path, folder)], stdout=log, stderr=log)
            while sum(killed.values()) < kills:
                try:
                    controller.wait(draw.uniform(0.5 * every, 1.5 * every))
                    break
                except subprocess.TimeoutExpired:
                    killed[_kill_one(controller, folder, draw)] += 1
                if killed and controller.poll() is not None:
                    break
            code = controller.wait()
            if code >= 0:
                break
    return {
        "exit_code": code,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "kills": dict(killed),
    }


def _kill_one(controller: "subprocess.Popen[bytes]", folder: Path, draw: random.Random) -> str:
    """Kill the controller, the process of a trial that is being trained, or the one that it was forked from."""
    what = draw.choices(["controller", "trial", "starter"], [6, 12, 2])[0]
    if what == "trial" and (processes := _trials(folder)):
        psutil.Process(draw.choice(processes)).kill()
        return what
    if what == "starter":
        for child in psutil.Process(controller.pid).children():
            if "etude.sweep.starter" in child.cmdline():
                child.kill()
                return what
    controller.kill()
    controller.wait()
    return "controller"


def _trials(folder: Path) -> list[int]:
    """Ids of the processes that hold a run."""
    runs = [path for path in (folder / "runs").glob("[!.]*") if is_locked(path)]
    return [int(Run(path).lease["pid"]) for path in runs]


def _words(path: Path, folder: Path) -> list[str]:
    return ["sweep", "run", str(path), "--folder", str(folder)]


def _cpu_of_children() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_folder(sweep: Sweep, folder: SweepFolder) -> dict[str, Any]:
    """Trials that ended, steps and attempts that were made, device time and its split, size of the folder."""
    states = folder.read(sweep.trials)
    histories = {name: History(state.run, state.run.ledger()) for name, state in states.items()}
    costs = split_costs(histories)
    made = [_made(history) for history in histories.values()]
    return {
        "finished": sum(state.is_finished for state in states.values()),
        "runs": sum(1 for _ in folder.runs.glob("[!.]*")),
        "with_scores": sum(bool(history.events(Scores)) for history in histories.values()),
        "attempts": sum(attempts for attempts, _ in made),
        "steps_made": sum(steps for _, steps in made),
        "device_seconds": round(costs.measured, 1),
        "charged_seconds": round(sum(costs.charged.values()), 1),
        "bytes": sum(path.stat().st_size for path in folder.runs.rglob("*") if path.is_file()),
    }


def _made(history: History) -> tuple[int, int]:
    """Attempts and steps that a run made itself, those that were made again too."""
    origin = history.run.info.get("origin")
    own = {each.number for each in history.attempts if origin is None or each.from_step >= origin["step"]}
    steps = sum(isinstance(each.event, Step) and each.attempt in own for each in history.ledger.all)
    return len(own), steps


def compare(sweep: Sweep, quiet: Path, killed: Path) -> dict[str, Any]:
    """Trials whose weights and series of figures are the same in two folders."""
    one, other = SweepFolder(quiet).read(sweep.trials), SweepFolder(killed).read(sweep.trials)
    both = [name for name in one if name in other]
    weights = [name for name in both if _weights(one[name].run) == _weights(other[name].run)]
    series = [name for name in both if _series(one[name].run) == _series(other[name].run)]
    return {
        "equal_weights": len(weights),
        "equal_series": len(series),
        "unequal": sorted(set(both) - (set(weights) & set(series))),
    }


def _weights(run: Run) -> dict[str, str]:
    """The SHA-256 of each file of weights and of the optimizer, of every checkpoint that is kept."""
    files = [file for path in list_checkpoints(run.checkpoints) for file in path.glob("*.safetensors")]
    return {
        f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def _series(run: Run) -> list[dict[str, Any]]:
    """Steps, evaluations and the newest scores, without their times."""
    history = History(run, run.ledger())
    found: list[Step | Evaluation | Scores] = [*history.steps, *history.evaluations, *history.scores]
    made = [to_json(each, 0.0) for each in found]
    return [{key: value for key, value in each.items() if "seconds" not in key} for each in made]


if __name__ == "__main__":
    main()

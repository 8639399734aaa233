"""kill -9 of one of two ranks after random steps, each time continued to the end on 2, 1 or 4 ranks.

With as many ranks the end has the same bits as an unbroken run; with another number the losses are those of it
to 1e-5. The ranks are forks of this process, which takes the part of their launcher.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, write_result

sys.path.insert(0, str(FOLDER.parent))

import torch

from etude.launch.ranks import RESUMABLE
from etude.recipe.load import change, recipe_from
from etude.records.events import Step
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.processes import final_bits
from tests.ranks import Forks
from tests.recipes import tiny

STEPS, RESTARTS = 24, (2, 1, 4)
CLAIM = (
    "kill -9 of one of two gloo ranks after a random step, the run continued on 2, 1 or 4 ranks: same bits with as "
    "many ranks, losses of all steps within 1e-5 with another number"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each layout")
    parser.add_argument("--seed", type=int, default=17)
    asked = parser.parse_args()
    folder = WORK / "ranks-killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["ETUDE_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    write_corpus(folder / "corpus.jsonl")
    rows = []
    result: dict[str, Any] = {}
    for parallel in ("replicate", "shard"):
        found = measure(folder / parallel, parallel, asked.kills, random.Random(asked.seed))
        result[parallel] = found
        rows.append([parallel, *(str(found[name]) for name in found)])
    write_result("ranks_killed", CLAIM, result, [["layout", *result["replicate"]], *rows])


def measure(folder: Path, parallel: str, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill and continue so often; counts, and the largest difference of a loss."""
    folder.mkdir()
    values = {
        "train.steps": STEPS, "train.parallel": parallel, "records.log_every_steps": 1,
        "checkpoint.every_steps": 3, "evaluate.every_steps": STEPS, "train.micro_batch_size": 2,
    }  # fmt: skip
    recipe = tiny(folder.parent / "corpus.jsonl", values)
    whole = folder / "whole"
    assert start(recipe, whole, 2, folder).wait() == {0: "", 1: ""}
    wanted, bits = losses(only(whole)), final_bits(whole)
    found: dict[str, Any] = {
        "kills": 0,
        "ended by the others": 0,
        "same bits": f"0 of {-(-kills // 3)}",
        "largest difference": 0.0,
    }
    same = 0
    for number in range(kills):
        runs, ranks = folder / f"killed-{number}", RESTARTS[number % 3]
        victim = draw.randrange(2)
        forks = start(recipe, runs, 2, folder)
        kill(forks, runs, victim, draw.randrange(1, STEPS - 1), folder, draw.random() * 0.2)
        said = forks.wait()
        found["kills"] += 1
        found["ended by the others"] += said[1 - victim].startswith("LostRankError: rank")
        again = start(recipe, runs, ranks, folder).wait()
        assert not any(again.values()), again
        largest = max(abs(a - b) for a, b in zip(losses(only(runs)), wanted, strict=True))
        found["largest difference"] = max(found["largest difference"], largest)
        if ranks == 2:
            same += final_bits(runs) == bits
            found["same bits"] = f"{same} of {-(-kills // 3)}"
        print(parallel, number, f"rank {victim}, on {ranks}", found, flush=True)
    return found


def start(recipe: dict[str, Any], runs: Path, ranks: int, folder: Path) -> Forks:
    """Train a recipe on some ranks, which go on with what is there."""
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    meeting.mkdir()
    beside = {"train.devices": ranks, **({"train.parallel": "auto"} if ranks == 1 else {})}
    live = partial(_live, change(recipe, beside), runs)
    return Forks(ranks, live, meeting, folder=meeting if ranks > 1 else None)


def _live(recipe: dict[str, Any], runs: Path, rank: int) -> None:
    training = run_recipe(recipe_from(recipe), Options(runs=runs, has_report=False))
    assert training.ending.state == "finished", RESUMABLE


def kill(forks: Forks, runs: Path, victim: int, step: int, folder: Path, delay: float) -> None:
    """Kill a rank after a step, and tell the others, as a launcher does."""
    end = time.monotonic() + 600
    while made(runs) < step:
        assert time.monotonic() < end and forks.ranks[victim].is_alive(), forks.wait()
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(forks.pid(victim), signal.SIGKILL)
    (forks.out / "lost").write_text(f"rank {victim} was killed by SIGKILL")


def made(runs: Path) -> int:
    """Steps in the journal of the only run."""
    return sum(path.read_bytes().count(b'"type": "step"') for path in runs.glob("*/journal.jsonl"))


def only(runs: Path) -> Run:
    (run,) = list_runs(runs)
    return run


def losses(run: Run) -> list[float]:
    return [each.event.loss for each in run.ledger().entries if isinstance(each.event, Step)]


if __name__ == "__main__":
    main()

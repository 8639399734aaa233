"""Losses over 1, 2 and 4 ranks, and kill -9 of one of two after random steps, for each kind and optimizer.

A killed run is continued to its end on 2, 1 or 4 ranks. With as many ranks the end has the same bits as an unbroken
run; with another number the losses are those of it to 1e-5. The ranks are forks of this process, which takes the part
of their launcher.

    python benchmarks/ranks_killed.py --kills 6 --only lora seq2seq   # the others keep their lines
"""

import argparse
import json
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
from tests.bases import write_corpus, write_instructions, write_labelled, write_pairs, write_qwen2
from tests.processes import final_bits
from tests.ranks import Forks
from tests.recipes import classification, finetuning, masked, seq2seq, tasks, tiny

STEPS, RESTARTS = 20, (2, 1, 4)
PATIENCE_SECONDS = 3600.0  # beside other work a run of 20 steps has taken ten minutes
CLAIM = (
    "losses of 20 steps over 2 and 4 gloo ranks against one rank; kill -9 of one of two ranks after a random step, the "
    "run continued on 2, 1 or 4 ranks: same bits with as many ranks, losses of all steps within 1e-5 with another"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=6, help="of each line")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument(
        "--only", nargs="*", default=[], help="kinds and optimizers; the others keep their lines"
    )
    asked = parser.parse_args()
    folder = WORK / "ranks-killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["ETUDE_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    result: dict[str, Any] = read_result()
    for name, recipe in recipes(folder).items():
        for parallel in ("replicate", "shard") if name in (asked.only or [name]) else ():
            line = f"{name}, {parallel}"
            place = folder / line.replace(", ", "-")
            result[line] = measure(
                place, change(recipe, {"train.parallel": parallel}), asked.kills, asked.seed
            )
            print(line, result[line], flush=True)
            write_result("ranks_killed", CLAIM, result, rows_of(result))


def read_result() -> dict[str, Any]:
    """The lines of before."""
    path = FOLDER / "results" / "ranks_killed.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    return {line: found for line, found in before.items() if line.endswith((", replicate", ", shard"))}


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    names = list(next(iter(result.values())))
    return [
        ["line", *names],
        *([line, *(str(found[name]) for name in names)] for line, found in result.items()),
    ]


def recipes(folder: Path) -> dict[str, dict[str, Any]]:
    """Each kind of training and optimizer at toy size."""
    corpus, rows = write_corpus(folder / "corpus.jsonl"), write_labelled(folder / "labelled.jsonl", 60)
    instructions, base = write_instructions(folder / "rows.jsonl", 40), write_qwen2(folder / "base")
    pairs = write_pairs(folder / "pairs.jsonl", 60)
    same = {
        "train.steps": STEPS, "records.log_every_steps": 1, "checkpoint.every_steps": 3,
        "evaluate.every_steps": STEPS, "train.micro_batch_size": 1, "train.global_batch_size": 8,
    }  # fmt: skip
    lora = {**same, "adapter": {"rank": 4, "alpha": 8}}
    (folder / "tasks").mkdir()
    return {
        "adamw": tiny(corpus, {**same, "train.micro_batch_size": 2}),
        "muon": tiny(corpus, {**same, "optim.kind": "muon"}),
        "adam, fp16": tiny(corpus, {**same, "optim.kind": "adam", "train.precision": "fp16"}),
        "full, pretrained": finetuning(instructions, base, same).to_dict(),
        "lora": finetuning(instructions, base, lora).to_dict(),
        # Dropout draws for each micro-batch of a rank: the same bits after a kill, other losses on other ranks.
        "lora, dropout": finetuning(instructions, base, change(lora, {"adapter.dropout": 0.1})).to_dict(),
        "dora, muon": finetuning(
            instructions, base, change(lora, {"adapter.dora": True, "optim.kind": "muon"})
        ).to_dict(),
        "classification": classification(rows, None, same).to_dict(),
        "masked": masked(rows, None, same).to_dict(),
        "seq2seq": seq2seq(pairs, None, {**same, "evaluate.answers": 2}).to_dict(),
        "tasks": tasks(folder / "tasks", same).to_dict(),
    }  # fmt: skip


def measure(folder: Path, recipe: dict[str, Any], kills: int, seed: int) -> dict[str, Any]:
    """Train on 1, 2 and 4 ranks, then kill and continue so often; counts, and the largest differences of losses."""
    folder.mkdir()
    draw = random.Random(seed)
    wanted = {ranks: trained(recipe, folder / f"whole-{ranks}", ranks, folder) for ranks in (1, 2, 4)}
    bits = final_bits(folder / "whole-2")
    found: dict[str, Any] = {
        f"{ranks} ranks against 1": max(
            abs(a - b) / abs(b) for a, b in zip(wanted[ranks], wanted[1], strict=True)
        )
        for ranks in (2, 4)
    }
    found |= {"kills": 0, "ended by the others": 0, "same bits": "", "largest difference": 0.0}
    same = 0
    for number in range(kills):
        runs, ranks = folder / f"killed-{number}", RESTARTS[number % 3]
        victim = draw.randrange(2)
        forks = start(recipe, runs, 2, folder)
        kill(forks, runs, victim, draw.randrange(1, STEPS - 1), folder, draw.random() * 0.2)
        said = forks.wait(seconds=PATIENCE_SECONDS)
        found["kills"] += 1
        found["ended by the others"] += said[1 - victim].startswith("LostRankError: rank")
        losses_of = trained(recipe, runs, ranks, folder)
        largest = max(abs(a - b) for a, b in zip(losses_of, wanted[2], strict=True))
        found["largest difference"] = max(found["largest difference"], largest)
        if ranks == 2:
            same += final_bits(runs) == bits
            found["same bits"] = f"{same} of {number // 3 + 1}"
    return found


def trained(recipe: dict[str, Any], runs: Path, ranks: int, folder: Path) -> list[float]:
    """The losses of a run that some ranks bring to its end."""
    said = start(recipe, runs, ranks, folder).wait(seconds=PATIENCE_SECONDS)
    assert not any(said.values()), said
    return losses(only(runs))


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
    end = time.monotonic() + PATIENCE_SECONDS
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

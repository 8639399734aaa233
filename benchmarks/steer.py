"""Requests to a run at random moments: how soon each is answered, what a look costs, and the bits they leave.

    python benchmarks/steer.py [RECIPE] [--moments 200] [--steps 51] [--out benchmarks/results/steer.json]

RECIPE (default: a small decoder with evaluations, texts, many checkpoints and torch.compile) is trained in
another process for as long as it takes; one request in sixty stops it, and it is resumed. Then runs of three
kinds are paused, resumed, stopped, saved and changed at random steps, and held against runs that are not.
Writes every request: what it waited for, and the seconds to the first answer and to the last.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, is_going_on, post
from etude.durable import write_file
from etude.errors import EtudeError
from etude.recipe.course import Change
from etude.recipe.load import recipe_from, to_toml
from etude.recipe.schema import Recipe
from etude.records.changes import changes_of
from etude.records.events import ACCEPT, Control, Step
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests import recipes
from tests.bases import write_corpus, write_instructions, write_labelled, write_qwen2
from tests.steered import steer

SET = {"action": "set", "key": "train.max_grad_norm"}
ASKED: list[dict[str, Any]] = [
    {"action": "checkpoint"}, {"action": "evaluate"}, {"action": "generate", "text": "def "},
    {"action": "note", "text": "benchmark"}, {**SET, "value": 1.0},
]  # fmt: skip
ONE_STOP_IN = 60
MEAN_SECONDS = 1.5  # between two requests
KINDS = ("lora", "pretraining", "classification")


def ask_at_random(recipe: Path, runs: Path, moments: int) -> list[dict[str, Any]]:
    """Ask at random moments, from the first in which the run takes requests; answers are not waited for."""
    draw, told = random.Random(0), dict[str, dict[str, Any]]()
    process, run = start(recipe, runs)
    failed = list[dict[str, Any]]()
    while len(told) + len(failed) < moments:
        if process.poll() is not None or run is None:
            process, run = start(recipe, runs)
        assert run is not None
        time.sleep(draw.expovariate(1 / MEAN_SECONDS))
        values = {"action": "stop"} if draw.randrange(ONE_STOP_IN) == 0 else draw.choice(ASKED)
        asked = time.time()
        try:
            told[post(run, **values)] = {**values, "asked": asked}
        except EtudeError as error:  # it has just ended
            failed.append({**values, "error": str(error)[:120]})
            process.wait()
    process.terminate()
    process.wait()
    assert run is not None
    for entry in run.ledger().all:
        if isinstance(entry.event, Control) and entry.event.request in told:
            _note_answer(told[entry.event.request], entry.event, entry.time)
    return [*told.values(), *failed]


def _note_answer(values: dict[str, Any], answer: Control, moment: float) -> None:
    seconds = round(moment - values["asked"], 3)
    if "first" not in values:
        waits_for = answer.reason.partition(": acts ")[2] if answer.action == ACCEPT else ""
        values |= {"first": seconds, "waits_for": waits_for.partition(" step ")[0] or answer.action}
    values |= {"last": seconds, "answer": answer.action, "reason": answer.reason[:80]}


def start(recipe: Path, runs: Path) -> tuple["subprocess.Popen[bytes]", Run | None]:
    """Start the run, or go on with it, and wait until it takes requests."""
    words = [sys.executable, "-m", "etude", "train", str(recipe), "--runs", str(runs)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        for run in list_runs(runs) if runs.exists() else ():
            if is_going_on(run):
                return process, run
        time.sleep(0.05)
    return process, None


def steer_at_random(folder: Path, kind: str, steps: int, requests: int) -> dict[str, Any]:
    """Steer a run at random steps, and compare its weights with those of a run that was asked for nothing.

    Its `set` are made in the other run too, as changes that are known from the start.
    """
    folder.mkdir()
    recipe, draw = _recipe(folder, kind, steps), random.Random(kind)
    asked: dict[int, list[dict[str, Any]]] = {}
    for step in sorted(draw.sample(range(1, steps), requests)):
        asked[step] = draw.choice([
            [{"action": "pause"}, {"action": "resume"}], [{"action": "pause", "release": True}],
            [{"action": "stop"}], [{"action": "checkpoint"}], [{"action": "evaluate"}],
            [{**SET, "value": round(draw.uniform(0.2, 2), 2)}],
        ])  # fmt: skip
    attempts, left = 0, dict(asked)
    while True:
        training = steer(recipe, folder / "steered", left)
        attempts += 1
        if not training.ending.is_resumable:
            break
        made = training.run.ledger().entries
        last = max(entry.event.step for entry in made if isinstance(entry.event, Step))
        left = {step: values for step, values in left.items() if step > last}
    controls = [each.event for each in training.run.ledger().entries if isinstance(each.event, Control)]
    changes = [change for control in controls for change in changes_of(control)]
    known = tuple(Change(each.step, each.key, each.value) for each in changes)
    whole = run_recipe(recipe, Options(runs=folder / "whole", changes=known)).run
    return {
        "kind": kind, "steps": steps, "attempts": attempts, "changes": len(changes),
        "asked": Counter(
            "pause and release" if each.get("release") else each["action"] for values in asked.values()
            for each in values
        ),
        "not_done": [each.reason for each in controls if each.action in ("refuse", "void")],
        "same_weights": _weights(training.run) == _weights(whole),
    }  # fmt: skip


def _recipe(folder: Path, kind: str, steps: int) -> Recipe:
    values: dict[str, Any] = {
        "train.steps": steps, "evaluate.every_steps": 10, "checkpoint.every_steps": 7,
        "records.log_every_steps": 1,
    }  # fmt: skip
    match kind:
        case "lora":
            adapter = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj"], "dropout": 0.1}
            rows = write_instructions(folder / "rows.jsonl", 40)
            return recipes.finetuning(rows, write_qwen2(folder / "base"), {"adapter": adapter, **values})
        case "classification":
            values["model.dropout"] = 0.1
            return recipes.classification(write_labelled(folder / "rows.jsonl", 60), changes=values)
        case _:
            values["model.dropout"] = 0.1
            return recipe_from(recipes.tiny(write_corpus(folder / "corpus.jsonl"), values))


def _weights(run: Run) -> list[bytes]:
    """Weights and optimizer of the last checkpoint."""
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    return [path.read_bytes() for path in sorted(last.glob("*.safetensors"))]


def write_default(folder: Path) -> Path:
    """A recipe whose evaluations, texts, checkpoints and compiling take some of its time each."""
    values = recipes.tiny(write_corpus(folder / "corpus.jsonl", 400), {
        "name": "steered", "train.steps": 100_000, "train.compile": True, "evaluate.every_steps": 200,
        "evaluate.prompts": ["def ", "def total", "class "], "evaluate.sample_tokens": 200,
        "checkpoint.every_steps": 50, "records.log_every_steps": 10, "model.n_embd": 64, "model.n_ffn": 128,
    })  # fmt: skip
    write_file(folder / "recipe.toml", to_toml(recipe_from(values)).encode())
    return folder / "recipe.toml"


def cost_of_look(folder: Path, looks: int = 100_000) -> float:
    """Seconds of one look of the desk at a mailbox in which nothing is new."""
    (folder / FILE).write_bytes(b"")
    clerk = Clerk(Mailbox(folder / FILE), "now", print, lambda: 0, lambda: 1, print)
    clerk.look()
    began = time.process_time()
    for _ in range(looks):
        clerk.look()
    return (time.process_time() - began) / looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?")
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--steps", type=int, default=51, help="random steps at which runs are steered")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/steer.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        look = cost_of_look(folder)
        kinds = [
            steer_at_random(folder / kind, kind, given.steps, given.steps // len(KINDS)) for kind in KINDS
        ]
        told = ask_at_random(given.recipe or write_default(folder), folder / "runs", given.moments)
    waits = sorted(each["first"] for each in told if "first" in each)
    summary = {
        "look_microseconds": round(1e6 * look, 2), "moments": len(told), "answered": len(waits),
        "first_answer_median": waits[len(waits) // 2] if waits else None,
        "first_answer_longest": waits[-1] if waits else None,
        "waited_for": Counter(each.get("waits_for", "error") for each in told), "steered": kinds,
    }  # fmt: skip
    lines = [json.dumps(each) for each in told]
    text = json.dumps(summary, indent=1)[:-2] + ',\n "asked": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    write_file(given.out, text.encode())
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

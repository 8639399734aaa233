"""Requests to a run at random moments: how soon each is answered, what a look costs, and the bits they leave.

    python -m benchmarks.steer [RECIPE] [--moments 200] [--requests 50] [--out benchmarks/results/steer.json]

RECIPE (default: a small decoder with evaluations, texts, many checkpoints and torch.compile) is trained in
another process for as long as it takes; one request in sixty stops it, and it is resumed. Runs of three
kinds, with one rank and with two, are paused, resumed, stopped, saved and changed at random steps, and held
against runs that are not, and against their replays. Writes every request: what it waited for, and the
seconds to the first answer and to the last.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, is_going_on, post
from etude.durable import write_file
from etude.errors import EtudeError
from etude.recipe.load import recipe_from, to_toml
from etude.recipe.schema import Recipe
from etude.records.changes import all_changes
from etude.records.events import ACCEPT, REFUSALS, Attempt, Control
from etude.records.store import Run, list_runs
from tests import recipes
from tests.bases import write_corpus, write_instructions, write_labelled, write_qwen2
from tests.programs import run_program

SET = {"action": "set", "key": "train.max_grad_norm"}
ASKED: list[dict[str, Any]] = [
    {"action": "checkpoint"}, {"action": "evaluate"}, {"action": "generate", "text": "def "},
    {"action": "note", "text": "benchmark"}, {**SET, "value": 1.0},
]  # fmt: skip
ONE_STOP_IN = 60
MEAN_SECONDS = 1.5  # between two requests
KINDS = ("lora", "pretraining", "classification")
UNCHANGING: list[Callable[[], list[dict[str, Any]]]] = [
    lambda: [{"action": "pause"}, {"action": "resume"}], lambda: [{"action": "checkpoint"}],
]  # fmt: skip


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


def steer_at_random(folder: Path, kind: str, ranks: int, requests: int) -> dict[str, Any]:
    """Steer runs at random steps, and compare the bits of their weights and optimizers.

    One is paused or saved at each, and is to end as the run that was asked for nothing; the other is asked
    for all that there is, and is to be made again by `etude train RECIPE --replay RUN`.
    """
    folder.mkdir()
    steps = 2 * requests + 1
    recipe, draw = _recipe(folder, kind, steps, ranks), random.Random(f"{kind} {ranks}")
    write_file(folder / "recipe.json", json.dumps(recipe.to_dict()).encode())
    write_file(folder / "recipe.toml", to_toml(recipe).encode())

    def ask(choices: Sequence[Callable[[], list[dict[str, Any]]]]) -> dict[int, list[dict[str, Any]]]:
        return {step: draw.choice(choices)() for step in sorted(draw.sample(range(1, steps), requests))}

    asked = {"whole": {}, "unchanged": ask(UNCHANGING), "steered": ask([*UNCHANGING, *_others(draw)])}
    words = [word for name, values in asked.items() for word in (str(folder / name), json.dumps(values))]
    made = run_program(
        "steered", [str(folder / "recipe.json"), *words], folder / "cache", ranks=ranks, seconds=3600
    )
    if made.code:
        raise SystemExit(made.err[-2000:])
    whole, unchanged, steered = (list_runs(folder / name)[0] for name in asked)
    command = [
        "train",
        str(folder / "recipe.toml"),
        "--runs",
        str(folder / "steered"),
        "--replay",
        steered.name,
    ]
    environment = {**os.environ, "ETUDE_CACHE": str(folder / "cache")}
    subprocess.run(
        [sys.executable, "-m", "etude", *command], check=True, env=environment, capture_output=True
    )
    (replayed,) = [run for run in list_runs(folder / "steered") if run.name != steered.name]
    controls = [
        each.event for run in (unchanged, steered) for each in run.ledger().entries
        if isinstance(each.event, Control)
    ]  # fmt: skip
    return {
        "kind": kind, "ranks": ranks, "steps": steps, "asked_at": requests,
        "attempts": sum(isinstance(each.event, Attempt) for each in steered.ledger().all),
        "changes": len(all_changes(controls)),
        "asked": Counter(
            "pause and release" if each.get("release") else each["action"]
            for values in asked["steered"].values() for each in values
        ),
        "not_done": [each.reason for each in controls if each.action in REFUSALS],
        "unchanged_by_pause_and_checkpoint": _weights(unchanged) == _weights(whole),
        "replayed": _weights(replayed) == _weights(steered) != _weights(whole),
    }  # fmt: skip


def _others(draw: random.Random) -> list[Callable[[], list[dict[str, Any]]]]:
    """Requests that end an attempt, measure or change something."""
    return [
        lambda: [{"action": "pause", "release": True}], lambda: [{"action": "stop"}],
        lambda: [{"action": "evaluate"}], lambda: [{**SET, "value": round(draw.uniform(0.2, 2), 2)}],
        lambda: [{**SET, "key": "optim.learning_rate", "value": round(draw.uniform(1e-4, 5e-3), 5)}],
    ]  # fmt: skip


def _recipe(folder: Path, kind: str, steps: int, ranks: int) -> Recipe:
    values: dict[str, Any] = {
        "train.steps": steps, "train.devices": ranks, "train.micro_batch_size": 2, "evaluate.every_steps": 10,
        "checkpoint.every_steps": 7, "records.log_every_steps": 1,
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
    parser.add_argument("--requests", type=int, default=50, help="random steps at which runs are steered")
    parser.add_argument("--part", choices=("moments", "steered"), help="measure one part; keep the other")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/steer.json"))
    given = parser.parse_args()
    known = json.loads(given.out.read_bytes()) if given.part else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.part != "moments":
            known["steered"] = []
            for kind, ranks in product(KINDS, (1, 2)):
                steered = steer_at_random(folder / f"{kind}-{ranks}", kind, ranks, given.requests)
                known["steered"].append(steered)
                print(json.dumps(steered), flush=True)
        if given.part != "steered":
            look = cost_of_look(folder)
            told = ask_at_random(given.recipe or write_default(folder), folder / "runs", given.moments)
            known |= {**_answers(told), "look_microseconds": round(1e6 * look, 2), "asked": told}
    told = known.pop("asked")
    lines = [json.dumps(each) for each in told]
    text = json.dumps(known, indent=1)[:-2] + ',\n "asked": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    write_file(given.out, text.encode())
    print(json.dumps(known))


def _answers(told: list[dict[str, Any]]) -> dict[str, Any]:
    waits = sorted(each["first"] for each in told if "first" in each)
    return {
        "moments": len(told), "answered": len(waits),
        "first_answer_median": waits[len(waits) // 2] if waits else None,
        "first_answer_longest": waits[-1] if waits else None,
        "waited_for": Counter(each.get("waits_for", "error") for each in told),
    }  # fmt: skip


if __name__ == "__main__":
    main()

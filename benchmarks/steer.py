"""Requests to a run at random moments: how soon each is answered, and what the clerk costs a step.

    python benchmarks/steer.py RECIPE [--moments 200] [--out benchmarks/results/steer.json]

RECIPE is trained in another process for as long as it takes, with texts at its evaluations, and started
again where it ends. Writes every answer: what was asked, what the run did then, seconds to the first
answer and to the last.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from etude.control.ask import Asked
from etude.control.clerk import Clerk
from etude.control.mailbox import FILE, Mailbox, is_going_on
from etude.durable import write_file
from etude.errors import EtudeError
from etude.records.store import Run, list_runs

ASKED: list[dict[str, Any]] = [
    {"action": "checkpoint"}, {"action": "evaluate"}, {"action": "generate", "text": "def "},
    {"action": "note", "text": "benchmark"}, {"action": "set", "key": "train.max_grad_norm", "value": 1.0},
]  # fmt: skip


def ask_at_random(recipe: Path, runs: Path, moments: int) -> list[dict[str, Any]]:
    """Ask at random moments, from the first in which the run takes requests."""
    draw, told = random.Random(0), list[dict[str, Any]]()
    process, run = start(recipe, runs)
    while len(told) < moments:
        if process.poll() is not None or run is None:
            process, run = start(recipe, runs)
        assert run is not None
        time.sleep(draw.uniform(0, 1))
        values = draw.choice(ASKED)
        began = time.monotonic()
        try:
            answers = [(each, time.monotonic() - began) for each in Asked(run, **values).answers(60.0)]
            answer, last = answers[-1]
            seconds = {"first": round(answers[0][1], 3), "last": round(last, 3)}
            told.append({**values, **seconds, "answer": answer.action, "reason": answer.reason[:80]})
        except EtudeError as error:
            told.append({**values, "error": str(error)[:120]})
    process.terminate()
    process.wait()
    return told


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
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("steer-runs"))
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/steer.json"))
    given = parser.parse_args()
    given.runs.mkdir(exist_ok=True)
    look = cost_of_look(given.runs)
    told = ask_at_random(given.recipe, given.runs, given.moments)
    waits = sorted(each["first"] for each in told if "first" in each)
    summary = {
        "look_microseconds": round(1e6 * look, 2), "moments": len(told), "answered": len(waits),
        "first_answer_median": waits[len(waits) // 2] if waits else None,
        "first_answer_longest": waits[-1] if waits else None,
    }  # fmt: skip
    write_file(given.out, json.dumps({**summary, "asked": told}, indent=1).encode() + b"\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

"""Runs with texts to rate, and what has been said of them."""

import math
from pathlib import Path

from etude.records.events import Evaluation, Generation, Rating
from etude.records.store import Run
from etude.report.history import read_history
from tests.report.runs import attempt, new_run


def talkative_run(runs: Path, name: str, prompts: int = 6) -> Run:
    writer = new_run(runs)
    writer.append(attempt(), Evaluation(8, 1.0, math.e, None, 5, 1.0, True))
    for step in (4, 8):
        writer.append(
            *(Generation(step, f"prompt {n}", f"{name} {n} at {step}\x1b[31m", {}) for n in range(prompts))
        )
    writer.close("finished")
    return writer.run


def ratings(run: Run) -> list[Rating]:
    return read_history(run).ratings


def refuse(_: str) -> str:
    raise AssertionError("nothing was to be asked")

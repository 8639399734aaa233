"""Cost of the watch: processor time of a step with and without it, in turn, and of the tests before the first.

python benchmarks/watch/overhead.py [--turns 20] [--width 48]

Both runs train the same recipe in this process, forty steps at a time each, so that what disturbs the machine
meets both alike. Processor time of all threads; evaluations and checkpoints lie outside of the turns. Writes
results/watch_overhead.json.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude import Options, Training
from etude.engine.loop import Step
from watch.cases import Case, recipe_of
from watch.grid import quick

STEPS_A_TURN = 40
CLAIM = "watch: processor time of a step with the watch over that without it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--width", type=int, nargs="+", default=[48, 192], help="of the model")
    options = parser.parse_args()
    results = {f"width {width}": measure(width, options.turns) for width in options.width}
    rows = [["model", "ms a step without", "ms with", "more", "interval of 95 %", "s before the first step"]]
    for name, result in results.items():
        low, high = result["interval"]
        cells = [f"{result[key]:.3f}" for key in ("milliseconds_without", "milliseconds_with")]
        first = f"{result['start_without']:.2f}, with {result['start_with']:.2f}"
        rows.append([name, *cells, f"{result['more']:+.2%}", f"{low:+.2%} to {high:+.2%}", first])
    write_result("watch_overhead", CLAIM, results, rows)


def measure(width: int, turns: int) -> dict[str, Any]:
    """Step times of both sides, and the ratio of the medians with a bootstrap interval over turns."""
    taken: dict[str, list[float]] = {"off": [], "warn": []}
    start: dict[str, float] = {}
    with quick(), tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        sides: dict[str, Any] = {}
        for policy in taken:
            begun = time.process_time()
            sides[policy] = stack.enter_context(contextlib.closing(_steps(policy, width, turns, Path(home))))
            next(sides[policy])
            start[policy] = time.process_time() - begun
        for turn in range(turns + 1):
            for policy in ("off", "warn") if turn % 2 else ("warn", "off"):
                begun = time.process_time()
                for _ in range(STEPS_A_TURN):
                    next(sides[policy])
                if turn:  # the first warms up
                    taken[policy].append((time.process_time() - begun) / STEPS_A_TURN * 1e3)
    without, with_it = (statistics.median(taken[policy]) for policy in ("off", "warn"))
    return {
        "milliseconds_without": without, "milliseconds_with": with_it, "more": with_it / without - 1,
        "interval": _interval(taken["off"], taken["warn"]), "start_without": start["off"],
        "start_with": start["warn"], "turns": taken,
    }  # fmt: skip


def _steps(policy: str, width: int, turns: int, home: Path) -> Generator[Step]:
    changes = {
        "watch.policy": policy, "model.n_embd": width, "train.steps": (turns + 2) * STEPS_A_TURN,
        "evaluate.every_steps": 10**6, "records.log_every_steps": 10,
    }  # fmt: skip
    recipe = recipe_of(
        Case("shakespeare-scratch", "plain", 0, 1, True),
        changes=changes,
        change_rows=lambda train, held_out, draw: (train, held_out),
    )
    yield from Training(recipe, Options(runs=home / policy, new=True))


def _interval(without: list[float], with_it: list[float], draws: int = 2000) -> list[float]:
    """95 % of the ratios of medians over turns drawn again, less 1."""
    draw = random.Random(1)
    places = range(len(without))
    ratios = []
    for _ in range(draws):
        chosen = [draw.choice(places) for _ in places]
        pair = (statistics.median([side[place] for place in chosen]) for side in (with_it, without))
        ratios.append(next(pair) / next(pair) - 1)
    ratios.sort()
    return [ratios[int(0.025 * draws)], ratios[int(0.975 * draws)]]


if __name__ == "__main__":
    main()

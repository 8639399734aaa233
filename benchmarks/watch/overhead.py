"""Cost of the watch: processor time of a step with and without it, in turn, of the tests, and peak memory.

python benchmarks/watch/overhead.py [--turns 20] [--width 48]

Both runs train the same recipe in this process, forty steps at a time each, so that what disturbs the machine
meets both alike. Without means no detectors, no rules of the loop and no tests before the first step.
Processor time of all threads; evaluations and checkpoints lie outside of the turns. The search for causes is
timed at the end, in steps. Peak memory is that of processes of their own, with a vocabulary of 50,257. Writes
results/watch_overhead.json.
"""

import argparse
import contextlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude import Options, Training, first_findings, session
from etude.audit import Audit
from etude.causes import find_causes
from etude.engine.loop import Step
from etude.recipe.load import with_changes as change_recipe
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from watch.cases import Case, recipe_of
from watch.grid import quick
from watch.meddling import replaced

STEPS_A_TURN = 40
CLAIM = "watch: processor time of a step with the watch over that without it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--width", type=int, nargs="+", default=[48, 192], help="of the model")
    parser.add_argument("--peak", choices=("off", "warn"), help="train a few steps and print the peak memory")
    options = parser.parse_args()
    if options.peak:
        print(train_large(options.peak))
        return
    results: dict[str, Any] = {f"width {width}": measure(width, options.turns) for width in options.width}
    rows = [
        [
            "model",
            "ms a step without",
            "ms with",
            "more",
            "interval of 95 %",
            "s before the first step",
            "causes",
        ]
    ]
    for name, result in results.items():
        low, high = result["interval"]
        cells = [f"{result[key]:.3f}" for key in ("milliseconds_without", "milliseconds_with")]
        first = f"{result['start_without']:.2f}, with {result['start_with']:.2f}"
        more = [f"{result['more']:+.2%}", f"{low:+.2%} to {high:+.2%}"]
        rows.append([name, *cells, *more, first, f"{result['steps_of_causes']:.0f} steps"])
    peaks = {policy: [measure_peak(policy) for _ in range(2)] for policy in ("off", "warn")}
    print(", ".join(f"peak memory {policy} {min(each) / 2**20:,.0f} MiB" for policy, each in peaks.items()))
    results["peak_bytes"] = peaks
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
            with watched(policy):
                next(sides[policy])
            start[policy] = time.process_time() - begun
        for turn in range(turns + 1):
            for policy in ("off", "warn") if turn % 2 else ("warn", "off"):
                begun = time.process_time()
                for _ in range(STEPS_A_TURN):
                    next(sides[policy])
                if turn:  # the first warms up
                    taken[policy].append((time.process_time() - begun) / STEPS_A_TURN * 1e3)
        causes = time_causes(width, Path(home))
    without, with_it = (statistics.median(taken[policy]) for policy in ("off", "warn"))
    return {
        "milliseconds_without": without, "milliseconds_with": with_it, "more": with_it / without - 1,
        "interval": _interval(taken["off"], taken["warn"]), "start_without": start["off"],
        "start_with": start["warn"], "steps_of_causes": causes * 1e3 / without, "turns": taken,
    }  # fmt: skip


@contextlib.contextmanager
def watched(policy: str) -> Iterator[None]:
    """Runs that begin in this block have no rules of the loop and no tests before step 0 if policy is off."""
    if policy != "off":
        yield
        return
    with replaced(session, "Invariants", Idle), replaced(first_findings, "audit", lambda *_, **__: Audit()):
        yield


class Idle:
    """Rules of the loop that nobody checks."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        pass

    def begin(self) -> None:
        pass

    def reading(self, batches: Any) -> Any:
        return batches

    def note(self, step: Step) -> None:
        pass

    def check(self, step: Step) -> list[Any]:
        return []

    def compare(self, snapshot: Any) -> list[Any]:
        return []

    def unchanged(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def time_causes(width: int, home: Path) -> float:
    """Processor seconds of a search for causes."""
    with contextlib.ExitStack() as stack:
        begun = session.begin(
            _recipe("warn", width, 1), Options(runs=home / "c"), stack, lambda: Ending("stopped")
        )
        next(begun.steps())
        find_causes(begun.plan, begun.state)  # warms up
        started = time.process_time()
        find_causes(begun.plan, begun.state)
        return time.process_time() - started


def measure_peak(policy: str) -> int:
    """Peak bytes of a process that trains a few steps with a policy."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", policy], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def train_large(policy: str) -> int:
    """Train twelve steps of a model with a large vocabulary; returns the peak bytes of this process."""
    changes = {"model.vocab_size": 50_257, "model.n_layer": 6, "train.seq_len": 512, "train.steps": 12}
    recipe = change_recipe(_recipe(policy, 384, 1), {**changes, "model.n_head": 6})
    with quick(), tempfile.TemporaryDirectory() as home, watched(policy):
        for _ in Training(recipe, Options(runs=Path(home), new=True)):
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _recipe(policy: str, width: int, turns: int) -> Recipe:
    changes = {
        "watch.policy": policy, "model.n_embd": width, "train.steps": (turns + 2) * STEPS_A_TURN,
        "evaluate.every_steps": 10**6, "records.log_every_steps": 10,
    }  # fmt: skip
    return recipe_of(
        Case("shakespeare-scratch", "plain", 0, 1, True),
        changes=changes,
        change_rows=lambda train, held_out, draw: (train, held_out),
    )


def _steps(policy: str, width: int, turns: int, home: Path) -> Generator[Step]:
    yield from Training(_recipe(policy, width, turns), Options(runs=home / policy, new=True))


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

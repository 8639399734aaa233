"""Score the watch on made curves: false alarms on healthy ones, and recall and delay on each fault.

python benchmarks/watch/made.py [--healthy 2000] [--faulty 100]

Healthy shapes are drawn by tests/watch/curves.py with warm-up bumps, decaying tails, epochs, restarts, heavy
tails and coarse logs, half of them as a plain log has them, with loss and validation loss only. Faults change
such a curve from a known point on. The draws are others than those that thresholds were set by. Writes
results/watch_made.json.
"""

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude.watch import Watcher
from etude.watch.point import Facts, Point
from tests.watch.curves import change, draw, healthy, without_extras
from watch.curves import wilson

FIRST_SEED = 5_000_000
Fault = Callable[[list[Point], int, Random], list[Point]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, default=2000)
    parser.add_argument("--faulty", type=int, default=100)
    options = parser.parse_args()
    calm = score_healthy(options.healthy)
    rows = [["fault", "found by its name", "points until then: median, 90 %", "other alarms"]]
    faults = {}
    for kind in FAULTS:
        faults[kind] = found = score_fault(kind, options.faulty)
        shown = f"{found['found']} of {found['runs']} {found['interval']}"
        rows.append([kind, shown, f"{found['median']}, {found['most']}", str(found["others"] or "none")])
    claim = "watch: made curves; each fault by its name, soon, and healthy curves without a warning"
    write_result("watch_made", claim, {"healthy": calm, "faults": faults}, rows)
    print(
        f"\nhealthy curves with a warning: {calm['alarms']} of {calm['runs']} {calm['interval']}, {calm['kinds']}"
    )


def score_healthy(count: int) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    alarms = points = 0
    for number in range(count):
        run, facts = healthy_run(number)
        watcher = watch(run, facts)
        found = {finding.kind for finding in watcher.findings if finding.severity != "info"}
        kinds.update(found)
        alarms += bool(found)
        points += len(run)
    return {
        "alarms": alarms,
        "runs": count,
        "points": points,
        "interval": wilson(alarms, count),
        "kinds": dict(kinds),
    }


def score_fault(kind: str, count: int) -> dict[str, Any]:
    """Curves on which the fault is named, and the points from its onset until then."""
    delays, others = [], Counter[str]()
    for number in range(count):
        run, facts, onset = faulty_run(kind, number)
        watcher = watch(run, facts)
        at = next((finding.step for finding in watcher.findings if finding.kind == kind), None)
        if at is not None:
            delays.append(sum(point.loss is not None for point in run[onset:] if point.step <= at))
        others.update({each.kind for each in watcher.findings if each.severity != "info"} - {kind})
    ranked = sorted(delays)
    return {
        "found": len(delays),
        "runs": count,
        "interval": wilson(len(delays), count),
        "median": statistics.median(ranked) if ranked else None,
        "most": ranked[int(0.9 * (len(ranked) - 1))] if ranked else None,
        "others": dict(others),
    }


def healthy_run(number: int) -> tuple[list[Point], Facts]:
    """A healthy curve; every second one as a plain log has it, without facts."""
    random = Random(FIRST_SEED + number)
    shape = draw(random)
    run = healthy(shape, random)
    return (without_extras(run), Facts()) if number % 2 else (run, shape.facts)


def faulty_run(kind: str, number: int) -> tuple[list[Point], Facts, int]:
    """A curve with a fault, and the place of the point at which it begins."""
    random = Random(2 * FIRST_SEED + number)
    shape = replace(draw(random), points=random.choice([300, 600, 1000]), evaluations=20, restart=0.0)
    run = healthy(shape, random)
    onset = 0 if kind in FROM_THE_START else len(run) // 3
    return FAULTS[kind](run, onset, random), replace(shape.facts, classes=50_000), onset


def watch(points: list[Point], facts: Facts) -> Watcher:
    watcher = Watcher(**{each.name: getattr(facts, each.name) for each in fields(facts)})
    for point in points:
        watcher.add(point)
    return watcher


def not_finite(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, loss=lambda at, each: math.nan)


def spike(run: list[Point], onset: int, random: Random) -> list[Point]:
    def loss(at: int, each: Point) -> float:
        return (each.loss or 0.0) * (1.5 * 0.8**at + 1)

    return change(run, onset, loss=loss, grad_norm=lambda at, each: each.grad_norm * (1 + 40 * 0.8**at))


def spikes(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, loss=lambda at, each: each.loss * (2 if random.random() < 0.04 else 1))


def jump(run: list[Point], onset: int, random: Random) -> list[Point]:
    first = max(each.loss for each in run[:5] if each.loss)

    def loss(at: int, each: Point) -> float:
        usual = each.loss or 0.0
        return usual + 0.8 * max(first - usual, 0.3 * first)

    return change(run, onset, loss=loss)


def collapse(run: list[Point], onset: int, random: Random) -> list[Point]:
    first = run[0].loss or 1.0
    run = [replace(each, epoch=(each.epoch or 0.0) / 4, eval_loss=None) for each in run]
    rate = random.uniform(0.02, 0.1)
    return change(run, 0, loss=lambda at, each: first * math.exp(-rate * at) + 0.004)


def overfit(run: list[Point], onset: int, random: Random) -> list[Point]:
    run = [replace(each, epoch=(each.epoch or 0.0) * 10) for each in run]
    part = len(run) - onset
    speed = random.uniform(0.3, 1.0)

    def train(at: int, each: Point) -> float:
        return (each.loss or 0.0) * (1 - 0.7 * at / part)

    return change(
        run,
        onset,
        loss=train,
        eval_loss=lambda at, each: each.eval_loss * (1 + speed * at / part),
    )


def dead(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, learning_rate=lambda at, each: 0.0)


def clip(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, grad_norm=lambda at, each: each.grad_norm * 50)


def overflow(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, loss_scale=lambda at, each: max(65536.0 / 2 ** (at // 10), 1.0))


def slow(run: list[Point], onset: int, random: Random) -> list[Point]:
    share = random.uniform(0.5, 0.85)
    return change(run, onset, tokens_per_second=lambda at, each: each.tokens_per_second * share)


def starve(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, wait_seconds=lambda at, each: 0.4 * each.seconds)


def creep(run: list[Point], onset: int, random: Random) -> list[Point]:
    def memory(at: int, each: Point) -> int:
        return int(each.memory_bytes or 0) + at * random.randrange(2**20, 2**21) * 4

    return change(run, onset, memory_bytes=memory)


def hang(run: list[Point], onset: int, random: Random) -> list[Point]:
    return change(run, onset, seconds=lambda at, each: each.seconds * 20 + 60 if at == 3 else each.seconds)


def chance(run: list[Point], onset: int, random: Random) -> list[Point]:
    level = math.log(50_000)
    return change(
        run,
        0,
        loss=lambda at, each: level * math.exp(random.gauss(0, 0.005)),
        eval_loss=lambda at, each: level,
    )


FAULTS: dict[str, Fault] = {
    "non_finite": not_finite, "spike": spike, "spikes": spikes, "divergence": jump, "first_pass_collapse": collapse,
    "overfitting": overfit, "dead_learning_rate": dead, "clip_saturation": clip, "scale_collapse": overflow,
    "slowdown": slow, "data_starvation": starve, "memory_creep": creep, "stall": hang, "plateau": chance,
}  # fmt: skip
FROM_THE_START = {"first_pass_collapse", "plateau"}

if __name__ == "__main__":
    main()

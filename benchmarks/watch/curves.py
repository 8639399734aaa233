"""Score the watch on training curves of other people that carry a label: false alarms, recall, cost of a point.

python benchmarks/watch/curves.py [--curves ../shared/curves] [--list]

Thresholds were tuned on the half of the runs whose name has an even hash, then frozen; both halves are
printed. Writes results/watch_curves.json.
"""

import argparse
import csv
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude.records.events import Finding
from etude.watch import Watcher
from etude.watch.point import Point

CURVES = Path(__file__).resolve().parents[3] / "shared" / "curves"
# Kinds of findings that say what a label says.
ANSWERS = {
    "overfit": {"overfitting"},
    "diverged": {"divergence", "non_finite"},
    "spiky": {"spikes", "spike", "evaluation_spike"},
}
LABELS = ("healthy", *ANSWERS, "undecided")
CLAIMS = set().union(*ANSWERS.values())
_FIGURES = ("epoch", "loss", "grad_norm", "learning_rate", "eval_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--list", action="store_true", help="print each run with its findings")
    options = parser.parse_args()
    if not (options.curves / "index.csv").exists():
        raise SystemExit(f"{options.curves} has no index.csv; give the folder of the curves by --curves")
    rows = list(csv.DictReader((options.curves / "index.csv").open()))
    runs = [judge(row, points_of(options.curves / "dev" / f"{row['id']}.jsonl")) for row in rows]
    if options.list:
        for run in runs:
            print(
                run["id"], run["label"], "tuned" if run["is_tuned"] else "held out", *run["found"], sep="  "
            )
    halves = {
        "tuned on": [run for run in runs if run["is_tuned"]],
        "held out": [run for run in runs if not run["is_tuned"]],
        "all": runs,
    }
    scores = {name: score(half) for name, half in halves.items()}
    cost = microseconds(options.curves / "dev")
    claim = "watch: labelled curves of other people; healthy without a warning, faults by their name, undecided so left"
    result = {"scores": scores, "microseconds_a_point": cost, "runs": runs}
    write_result("watch_curves", claim, result, table(scores))
    print("microseconds a point: " + ", ".join(f"{name} {value}" for name, value in cost.items()))


def points_of(path: Path) -> list[Point]:
    """The points of a curve; numbers that are not finite stand there as text."""
    points = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        values = {key: float(value) for key, value in entry.items()}
        metrics = {
            key.removeprefix("eval_"): value
            for key, value in values.items()
            if key.startswith("eval_") and key != "eval_loss"
        }
        figures: dict[str, Any] = {key: values[key] for key in _FIGURES if key in values}
        points.append(Point(step=int(values["step"]), metrics=metrics, **figures))
    return points


def judge(row: dict[str, str], points: list[Point]) -> dict[str, Any]:
    """The findings on a curve beside its label."""
    watcher = Watcher()
    for point in points:
        watcher.add(point)
    alarms = [finding for finding in watcher.findings if finding.severity != "info"]
    untold = watcher.untold()
    reasons = [untold[kind] for kind in ("overfitting", "divergence", "plateau") if kind in untold]
    reasons += [reason for finding in alarms if finding.kind not in CLAIMS for reason in finding.not_tested]
    kinds = {finding.kind for finding in alarms}
    return {
        "id": row["id"],
        "label": row["label"],
        "is_tuned": hashlib.sha256(row["id"].encode()).digest()[0] % 2 == 0,
        "points": len(points),
        "alarms": sorted(kinds),
        "is_right": is_right(row["label"], kinds, bool(reasons)),
        "reasons": reasons,
        "found": [shorten(finding) for finding in watcher.findings],
    }


def is_right(label: str, kinds: set[str], has_reason: bool) -> bool:
    if label == "healthy":
        return not kinds
    if label == "undecided":
        return not kinds & CLAIMS and has_reason
    return bool(kinds & ANSWERS[label])


def score(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Right runs of each label with a Wilson interval, and alarms per 1,000 points of healthy runs."""
    scores: dict[str, Any] = {}
    for label in LABELS:
        of_label = [run for run in runs if run["label"] == label]
        right = sum(run["is_right"] for run in of_label)
        scores[label] = {"right": right, "runs": len(of_label), "interval": wilson(right, len(of_label))}
    healthy = [run for run in runs if run["label"] == "healthy"]
    points = sum(run["points"] for run in healthy)
    scores["false_alarms_per_1000_points"] = (
        1000 * sum(len(run["alarms"]) for run in healthy) / max(points, 1)
    )
    return scores


def wilson(right: int, count: int, z: float = 1.96) -> list[float]:
    if not count:
        return [0.0, 1.0]
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    margin = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return [round(middle - margin, 3), round(middle + margin, 3)]


def microseconds(folder: Path) -> dict[str, float]:
    """Processor time of a point: over all curves, and over made ones with every figure; best of five passes."""
    curves = [points_of(path) for path in sorted(folder.glob("*.jsonl"))]
    full = [list(every_figure(5000, seed)) for seed in range(3)]
    return {
        name: round(_cost(runs), 2) for name, runs in {"real curves": curves, "every figure": full}.items()
    }


def _cost(runs: list[list[Point]]) -> float:
    passes = []
    for _ in range(5):
        started = time.process_time()
        for points in runs:
            watcher = Watcher(steps=len(points), max_grad_norm=1.0, classes=50_000)
            for point in points:
                watcher.add(point)
        passes.append((time.process_time() - started) / sum(map(len, runs)) * 1e6)
    return min(passes)


def every_figure(steps: int, seed: int) -> Iterator[Point]:
    """A healthy run whose points have all figures of training."""
    import random

    draw = random.Random(seed).gauss
    for step in range(1, steps + 1):
        yield Point(
            step=step, epoch=step / steps, loss=2 + 8 / step**0.4 + draw(0, 0.05), targets=1000,
            grad_norm=math.exp(draw(-1, 0.2)), learning_rate=1e-3, loss_scale=65536.0,
            update_ratio=1e-3, seconds=0.1 * math.exp(draw(0, 0.03)), wait_seconds=0.001,
            tokens_per_second=1e4 * math.exp(draw(0, 0.03)), memory_bytes=2**30 + int(draw(0, 1e6)),
            eval_loss=2 + 8 / step**0.4 if step % 100 == 0 else None,
        )  # fmt: skip


def table(scores: dict[str, Any]) -> list[list[str]]:
    rows = [["label", *scores]]
    for label in LABELS:
        cells = [scores[name][label] for name in scores]
        rows.append([label, *(f"{cell['right']} of {cell['runs']} {cell['interval']}" for cell in cells)])
    alarms = [f"{scores[name]['false_alarms_per_1000_points']:.2f}" for name in scores]
    return [*rows, ["false alarms per 1,000 healthy points", *alarms]]


def shorten(finding: Finding) -> str:
    return f"{finding.severity} {finding.kind} at {finding.step}: {finding.evidence}"


if __name__ == "__main__":
    main()

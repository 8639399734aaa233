"""Edit true reports, and count the edits that `etude verify RUN` tells, and tells by their kind.

A run of every kind of training is trained, its report is verified as it is, and then with one edit at a time:
a digit, a unit, points for percent, the last value for the best, training for validation, another run, a
rounding of what was rounded, or a claim that nothing supports.

    python -m benchmarks.mutations --number 300 --out benchmarks/results/mutations.json
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from etude.records.store import Run
from etude.report.history import History, read_history
from etude.report.verifying import verify_run
from etude.report.write import Report, make_report
from tests.report.mutated import EDITS, Mutation, mutate


def main() -> None:
    """Train, mutate, verify, and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="JSON of paths by kind, as an earlier call trained them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mutations.json"))
    given = parser.parse_args()
    from tests.every_kind import train_every_kind

    with tempfile.TemporaryDirectory() as folder:
        paths = json.loads(given.runs.read_text()) if given.runs else train_every_kind(Path(folder))
        result = measure({what: Run(Path(path)) for what, path in paths.items()}, given.number, given.seed)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print({key: value for key, value in result.items() if key != "misses"})


def measure(runs: dict[str, Run], number: int, seed: int) -> dict[str, Any]:
    """Counts of the mutations of reports of runs that are found, and found by their kind."""
    draw, counts, misses = random.Random(seed), dict[str, dict[str, int]](), []
    true = {what: [str(each) for each in verify_run(run.path).deviations] for what, run in runs.items()}
    histories = {what: read_history(run) for what, run in runs.items()}
    reports = {what: make_report(history) for what, history in histories.items()}
    started = time.perf_counter()
    made = 0
    while made < number:
        kind, what = list(EDITS)[made % len(EDITS)], draw.choice(list(runs))
        text = mutate(kind, reports[what], histories[what], draw)
        if text is None:
            continue
        made += 1
        path = runs[what].path / "report/report.md"
        path.write_text(text)
        told = verify_run(runs[what].path).deviations
        path.write_text(reports[what].text)
        count = counts.setdefault(kind, {"mutations": 0, "found": 0, "named": 0})
        is_named = [each.kind for each in told] == [kind]
        count["mutations"] += 1
        count["found"] += bool(told)
        count["named"] += is_named
        if not is_named:
            misses.append({"kind": kind, "run": what, "told": [str(each)[:300] for each in told]})
    totals = {key: sum(each[key] for each in counts.values()) for key in ("mutations", "found", "named")}
    return {
        "true reports": {"runs": len(runs), "flags": sum(map(len, true.values()))},
        "all": totals, "by kind": counts, "misses": misses,
        "seconds a verification": (time.perf_counter() - started) / number,
    }  # fmt: skip


def sample(report: Report, history: History, seed: int) -> Mutation | None:
    """One mutation drawn by a number."""
    draw = random.Random(seed)
    kind = draw.choice(list(EDITS))
    text = mutate(kind, report, history, draw)
    return None if text is None else (kind, text)


if __name__ == "__main__":
    main()

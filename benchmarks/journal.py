"""Time to read a long journal, to show its run again, and to list many runs, for two trees of the code in turn.

    python benchmarks/journal.py --before ../old --steps 1000000 --runs 1000

Figures are seconds of CPU of one process, the median of the turns; the list is after the page cache is warm.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEASURE = """
import sys, time
from pathlib import Path
from etude.records.journal import read_journal
from etude.records.store import Run, read_runs
from etude.report.summary import run_table, summarize, summarize_all

def clock(act):
    start = time.process_time()
    act()
    return time.process_time() - start

long, many = Run(Path(sys.argv[1])), Path(sys.argv[2])
print(clock(lambda: read_journal(long.path / "journal.jsonl")))
print(clock(lambda: summarize(long)))
print(clock(lambda: summarize(long)))
print(clock(lambda: run_table(summarize_all(read_runs(many)[0])[0])))
"""
NAMES = ("read_journal", "summarize_first", "summarize_again", "list_runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the code to compare with")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    figures: dict[str, list[list[float]]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as folder:
        long = make_runs(Path(folder), given.steps, given.runs)
        for _ in range(given.turns):
            for name, tree in (("before", given.before.resolve()), ("after", ROOT)):
                (long / "journal.index").unlink(missing_ok=True)
                command = [sys.executable, "-c", MEASURE, str(long), f"{folder}/many"]
                environment = {**os.environ, "PYTHONPATH": str(tree)}
                done = subprocess.run(
                    command, env=environment, cwd=tree, capture_output=True, text=True, check=True
                )
                figures[name].append([round(float(line), 4) for line in done.stdout.split()])
    medians = {name: dict(zip(NAMES, map(statistics.median, zip(*turns)))) for name, turns in figures.items()}
    result = {"steps": given.steps, "runs": given.runs, "seconds": medians, "turns": figures}
    (ROOT / "benchmarks/results/journal.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(medians, indent=1))


def make_runs(folder: Path, steps: int, runs: int) -> Path:
    """A run of many steps, and many small runs that have ended with their report."""
    sys.path.insert(0, str(ROOT))
    from etude.report.write import write_report
    from tests.report.runs import attempt, finished_run, new_run, window

    small = finished_run(folder / "many")
    write_report(small)
    for index in range(runs - 1):
        shutil.copytree(small.path, folder / "many" / f"small-{index:06d}")  # with times, so its index holds
    writer = new_run(folder / "long")
    writer.append(attempt(steps=steps))
    for first in range(1, steps + 1, 10):
        writer.append(*window(first, min(first + 9, steps)))
    writer.close("finished")
    return writer.run.path


if __name__ == "__main__":
    main()

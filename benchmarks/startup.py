"""Time of the commands that only read, against the 0.3 s after which a person notices.

With `--recipe`, also the time from `etude train` to its first step; a run before prepares its data.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import FOLDER, median, write_result

LIMIT_SECONDS, LIMIT_FIRST_STEP = 0.3, 3.0
ETUDE = [sys.executable, "-m", "etude"]
CLAIM = "Seconds that etude --help, check and runs take, against 0.3; an empty Python beside them"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, help="of a pretrained model, with records.log_every_steps = 1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "etude --help": [*ETUDE, "--help"],
            "etude check recipes/demo.toml": [*ETUDE, "check", str(FOLDER.parent / "recipes/demo.toml")],
            "etude runs": [*ETUDE, "runs", "--runs", empty],
        }
        result: dict[str, Any] = {}
        for name, command in commands.items():
            times = [_seconds(command) for _ in range(11)][1:]  # the first one fills the disk cache
            result[name] = {"median_seconds": round(median(times), 3), "min_seconds": round(min(times), 3)}
        if asked.recipe is not None:
            times = [_first_step(asked.recipe, Path(empty) / f"runs-{turn}") for turn in range(11)][1:]
            name = f"etude train, to the first step (at most {LIMIT_FIRST_STEP:g})"
            result[name] = {"median_seconds": round(median(times), 3), "min_seconds": round(min(times), 3)}
    rows = [[name, r["median_seconds"], r["min_seconds"]] for name, r in result.items()]
    write_result(
        "startup",
        CLAIM,
        {"limit_seconds": LIMIT_SECONDS, **result},
        [["command", "median s of 10", "min s"], *rows],
    )


def _seconds(command: list[str]) -> float:
    # As for anybody who starts etude twice: Python keeps what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=tempfile.gettempdir(), env=environment)
    return time.perf_counter() - started


def _first_step(recipe: Path, runs: Path) -> float:
    started = time.time()
    subprocess.run([*ETUDE, "train", str(recipe), "--runs", str(runs)], check=True, capture_output=True)
    (journal,) = runs.glob("*/journal.jsonl")
    events = map(json.loads, journal.read_text().splitlines())
    first = next(event for event in events if event["type"] == "step")
    return float(first["time"] - first["seconds"] - started)


if __name__ == "__main__":
    main()

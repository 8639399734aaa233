"""How long the commands that only read take, against the 0.3 s after which a person notices."""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import FOLDER, median, write_result

LIMIT_SECONDS = 0.3
ETUDE = [sys.executable, "-m", "etude"]
CLAIM = "Seconds that etude --help, check and runs take, against 0.3; an empty Python beside them"


def main() -> None:
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
    rows = [[name, r["median_seconds"], r["min_seconds"]] for name, r in result.items()]
    write_result(
        "startup", CLAIM, {"limit_seconds": LIMIT_SECONDS, **result}, [["command", "median s of 10", "min s"], *rows]
    )


def _seconds(command: list[str]) -> float:
    # As for anybody who starts etude twice: Python keeps what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=tempfile.gettempdir(), env=environment)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

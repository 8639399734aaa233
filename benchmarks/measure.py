"""Shared by the benchmarks: a description of the machine, environments of peers, turns, files of results.

Only the standard library is imported at the top, so that the workers of peers can use it in their
environments.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
WORK = FOLDER / ".work"
TORCH = "torch==2.13.0"


class Worker:
    """One side of a comparison, in a process of its own that works only while it is asked to.

    The process runs `SCRIPT worker SIDE ARGUMENTS`, prints a line of JSON once it is ready and one after each
    turn; its other output goes to `.work/SIDE.log`. While one side has its turn, all others wait for theirs.
    """

    def __init__(
        self,
        side: str,
        python: Path,
        script: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.side = side
        self._log = WORK / f"{side}.log"
        command = [str(python), str(FOLDER / script), "worker", side, *arguments]
        # -W: a peer's warnings are its own; they stay in its log.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log.open("w"), text=True,
            cwd=WORK, env=environment,
        )  # fmt: skip
        self.ready = self._read()

    def turn(self) -> dict[str, Any]:
        """Let it work for one turn; returns what it says of it."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                return dict(json.loads(line[1:]))
        tail = self._log.read_text().strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{self.side} ended: {tail[0]}")


def answer(value: Mapping[str, Any]) -> None:
    """From within a worker: say that it is ready, or what a turn came to."""
    sys.__stdout__.write("@" + json.dumps(dict(value)) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def wait_for_turn() -> None:
    """From within a worker: wait until the next turn is wanted; ends the process if none is."""
    if not sys.stdin.readline():
        import os

        os._exit(0)


class Turns:
    """From within a worker: called after every step, answers after each turn of `steps` and waits for the
    next.

    The first `warm_up` steps are not timed. Processor time is told too, as it hardly changes when others use
    the machine.
    """

    def __init__(self, steps: int, warm_up: int = 3) -> None:
        self._steps, self._left, self._is_ready = steps, warm_up, False
        self._started = self._busy = 0.0

    def step(self, loss: Callable[[], float | None] = lambda: None) -> None:
        self._left -= 1
        if self._left > 0:
            return
        now, busy = time.perf_counter(), time.process_time()
        turn = {"seconds": now - self._started, "cpu_seconds": busy - self._busy, "loss": loss()}
        answer(turn if self._is_ready else {"ready": True})
        self._is_ready, self._left = True, self._steps
        wait_for_turn()
        self._started, self._busy = time.perf_counter(), time.process_time()


def peer_python(name: str, requirements: Sequence[str], *, python: str = sys.executable) -> Path:
    """The Python of `.work/NAME`, made with pip on first use. Raises: RuntimeError with pip's last line."""
    folder = WORK / name
    wanted = "\n".join(requirements)
    stamp = folder / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        WORK.mkdir(exist_ok=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages of an environment."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    return dict(zip(packages, done.stdout.split()))


def take_turns(
    sides: Mapping[str, Callable[[], dict[str, Any]]], turns: int
) -> dict[str, list[dict[str, Any]]]:
    """Call each side `turns` times, one after the other, so that what disturbs the machine meets
    all alike."""
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for turn in range(turns):
        for side, work in sides.items():
            taken[side].append(work())
            print(
                f"turn {turn + 1} of {turns}, {side}: {json.dumps(taken[side][-1])}",
                file=sys.stderr,
                flush=True,
            )
    return taken


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def compare_rows(
    mode: str, taken: Mapping[str, list[dict[str, Any]]], rows: int
) -> tuple[dict[str, Any], list[list[str]]]:
    """Rows/s of each side from turns over so many rows, against the best but etude: for the JSON, and for the
    table.
    """
    speeds = {side: rows / median([turn["seconds"] for turn in turns]) for side, turns in taken.items()}
    best = max(speed for side, speed in speeds.items() if side != "etude")
    told = {
        side: {"rows_per_second": round(speed, 2), "ratio": round(speed / best, 3), "turns": taken[side]}
        for side, speed in speeds.items()
    }
    peaks = {side: max(turn["peak_bytes"] for turn in turns) for side, turns in taken.items()}
    return told, [
        [mode, side, f"{speed:.1f}", f"{speed / best:.2f}", f"{peaks[side] / 1e6:.0f}"]
        for side, speed in speeds.items()
    ]


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, system, Python and the packages that matter here."""
    from etude.records.environment import describe_environment

    environment = describe_environment()
    machine = environment["machine"]
    return {
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "memory_bytes": machine["memory_bytes"],
        "gpus": machine["gpus"],
        "system": platform.platform(),
        "versions": environment["versions"],
    }


def write_result(name: str, claim: str, result: Mapping[str, Any], table: Sequence[Sequence[Any]]) -> None:
    """Write `results/NAME.json` and print the table; its first row is the heading."""
    from etude import durable

    durable.make_folder(FOLDER / "results")
    content = {"claim": claim, "date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), **result}
    durable.write_json(FOLDER / "results" / f"{name}.json", content)
    print(f"\n{claim}\n")
    for index, row in enumerate(table):
        print("| " + " | ".join(map(str, row)) + " |")
        if index == 0:
            print("| --- " + "| --: " * (len(row) - 1) + "|")

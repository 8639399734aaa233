"""kill -9 at random moments, a thousand times: runs of each kind of training, on one rank and on two,
with a mirror, beside an open page, and a sweep; each is continued until it ends, and has to end with the
bits of one that nobody killed.

    python benchmarks/kills.py --kills 1000 [--only lora sweep]

Stop it at any time: counts are kept after each run in results/kills.json, and the next call adds to them.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, write_result

sys.path.insert(0, str(FOLDER.parent))

import tomlkit
from ranks_killed import STEPS, kill, recipes, start

from etude.recipe.load import change
from etude.records.store import list_runs
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from tests.forking import Server
from tests.release.runs import bits_of
from tests.sweeps import make, outcome
from tests.ui.serving import Serving, serving

KILLS_A_RUN, LONGEST_SECONDS = 2, 900.0
RANKS = ("adamw", "lora", "tasks")  # two ranks of each, some of which write their rows of one file
CLAIM = (
    "kill -9 at random moments of a run; the same command goes on, at most twice killed again, and the end has the bits "
    "(weights, optimizer, losses, validation) of a run that was never killed"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="in all, with those of earlier calls")
    parser.add_argument("--only", nargs="*", default=[], help="targets, as lora, 'two ranks, lora', sweep")
    asked = parser.parse_args()
    folder = WORK / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["ETUDE_CACHE"] = str(folder / "cache")
    counts, draw = read_counts(), random.Random()
    with Server("tests.release.armed") as server, serving(folder / "page" / "runs") as page:
        targets = make_targets(folder, server, page)
        chosen = [name for name in targets if name in (asked.only or [name])]
        while sum(count["kills"] for count in counts.values()) < asked.kills:
            name = min(chosen, key=lambda each: counts.get(each, {}).get("kills", 0))
            killed, is_same = targets[name].live(draw)
            count = counts.setdefault(name, {"kills": 0, "runs": 0, "same bits": 0})
            count["kills"] += killed
            count["runs"] += 1
            count["same bits"] += is_same
            total = {key: sum(each[key] for each in counts.values()) for key in count}
            write_result("kills", CLAIM, {"total": total, "targets": counts}, [[*total], [*total.values()]])
            if not is_same:
                raise SystemExit(f"{name}: another end; its folder is kept in {folder}")


def read_counts() -> dict[str, dict[str, int]]:
    """The counts of earlier calls."""
    path = FOLDER / "results" / "kills.json"
    return dict(json.loads(path.read_text())["targets"]) if path.exists() else {}


class Command:
    """A command in a folder of its own, killed with its process group, and the numbers that it comes to."""

    def __init__(self, folder: Path, server: Server, words: list[str], page: Serving | None = None) -> None:
        self._folder, self._server, self._words, self._page = folder, server, words, page
        self._whole: Any = None
        self._seconds = 0.0

    def live(self, draw: random.Random) -> tuple[int, bool]:
        """Kill the command at most twice and let it end; how often it was killed, and whether its end is the same."""
        if self._whole is None:
            for _ in range(2):  # the first one prepares the data
                began = time.monotonic()
                self._clear()
                self._run(LONGEST_SECONDS)
                self._seconds = time.monotonic() - began
            self._whole = self._numbers()
        self._clear()
        killed = 0
        with watched(self._page) if self._page else contextlib.nullcontext():
            for _ in range(KILLS_A_RUN):
                if self._run(draw.uniform(0, self._seconds)) == 0:
                    break
                killed += 1
            else:
                self._run(LONGEST_SECONDS)
        return killed, self._numbers() == self._whole

    def _run(self, seconds: float) -> int:
        answer = self._server.run(
            self._folder,
            self._words,
            seconds=seconds,
            environment=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
        )
        assert answer.code == 0 or (answer.code == -9 and seconds < LONGEST_SECONDS), answer
        return answer.code

    def _clear(self) -> None:
        for name in ("runs", "mirror", "place"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _numbers(self) -> Any:
        if (path := self._folder / "sweep.toml").exists():
            trials = load_sweep(path).trials
            found = SweepFolder(self._folder / "place").read(trials)
            return {name: outcome(state.run) for name, state in found.items() if state.is_finished}
        return numbers_of(self._folder / "runs")


class Ranks:
    """Two ranks of a run, one of which is killed."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._folder, self._recipe = folder, recipe
        self._whole: Any = None

    def live(self, draw: random.Random) -> tuple[int, bool]:
        """As of a command."""
        if self._whole is None:
            start(self._recipe, self._folder / "whole", 2, self._folder).wait()
            self._whole = numbers_of(self._folder / "whole")
        runs = self._folder / f"killed-{time.monotonic_ns()}"
        forks = start(self._recipe, runs, 2, self._folder)
        kill(forks, runs, draw.randrange(2), draw.randrange(1, STEPS - 1), self._folder, draw.random() * 0.2)
        forks.wait()
        said = start(self._recipe, runs, 2, self._folder).wait()
        assert not any(said.values()), said
        is_same = bool(numbers_of(runs) == self._whole)
        if is_same:
            shutil.rmtree(runs)
        return 1, is_same


def make_targets(folder: Path, server: Server, page: Serving) -> dict[str, Command | Ranks]:
    """All that is killed, by name."""
    (folder / "data").mkdir()
    kinds = recipes(folder / "data")
    found: dict[str, Command | Ranks] = {}
    for name, recipe in kinds.items():
        found[name] = command(folder / name.replace(", ", "-"), server, recipe)
    mirrored = change(kinds["adamw"], {"run": {"mirror": "mirror"}})
    found["mirror"] = command(folder / "mirror", server, mirrored)
    found["beside a page"] = command(folder / "page", server, kinds["adamw"], page)
    for name in RANKS:
        place = folder / f"ranks-{name}"
        place.mkdir()
        found[f"two ranks, {name}"] = Ranks(place, change(kinds[name], {"train.parallel": "shard"}))
    place = folder / "sweep"
    place.mkdir()
    make(place, folder / "data" / "corpus.jsonl", {"train.steps": [8, 12]}, {"model.n_layer": 1})
    found["sweep"] = Command(place, server, ["sweep", "run", "sweep.toml", "--folder", "place"])
    return found


def command(folder: Path, server: Server, recipe: dict[str, Any], page: Serving | None = None) -> Command:
    """A run of a recipe on one rank."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe))
    return Command(folder, server, ["train", "recipe.toml", "--runs", "runs"], page)


def numbers_of(runs: Path) -> Any:
    """The numbers of the one run in a folder, but for the checkpoints that it may have removed."""
    (run,) = list_runs(runs)
    assert run.state == "finished", run.state
    bits = bits_of(run)
    name = max(bits.checkpoints)
    return name, bits.checkpoints[name], bits.losses, bits.validation


@contextlib.contextmanager
def watched(page: Serving) -> Iterator[None]:
    """A reader asks the page for the list of runs, and for all of each, again and again."""
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(0.05):
            with contextlib.suppress(OSError):
                _, _, body = page.ask("/api/runs")
                for run in json.loads(body).get("runs", []):
                    page.ask(f"/api/runs/{run['id']}")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert not page.faults, page.faults


if __name__ == "__main__":
    main()

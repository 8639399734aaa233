"""kill -9 a thousand times, at random moments and at random calls to a disk: runs of each kind of training, on one
rank and on two, with a mirror, beside an open page, a sweep, exports and an evaluation; each is continued until it
ends, and has to end with the bits of one that nobody killed.

    python benchmarks/kills.py --kills 1000 [--only lora sweep]

Commands are forks of a process that has loaded torch, and so is all that they start. Stop it at any time: counts are
kept after ten commands in results/kills.json, and the next call adds to them.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, write_result

sys.path.insert(0, str(FOLDER.parent))

import psutil
import tomlkit
from ranks_killed import recipes

from etude.recipe.load import change
from etude.records.store import list_runs
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from tests.forking import Server
from tests.phases import Phases
from tests.release.runs import bits_of
from tests.sweeps import make, outcome
from tests.ui.serving import Serving, serving

KILLS_A_COMMAND, LONGEST_SECONDS = 4, 900.0
LATE_MODULES = (  # what commands load late, once for all forks
    "etude.sweep.stage", "sklearn.feature_extraction.text", "sklearn.linear_model", "rensa", "tokenizers",
    "safetensors.torch", "jinja2.sandbox", "sacrebleu", "torch._dynamo", "torch.distributed.fsdp",
)  # fmt: skip
RANKS = ("adamw", "lora", "tasks")  # two ranks of each, some of which write their rows of one file
SHORT = {
    "train.steps": 6, "train.global_batch_size": 4, "train.micro_batch_size": 2, "checkpoint.every_steps": 2,
    "checkpoint.keep": 2, "evaluate.every_steps": 3,
}  # fmt: skip
CLAIM = (
    "kill -9 at a random moment or at a random call to a disk, of a command or of one of its processes; the same command "
    "goes on, at most four times killed, and the end has the bits (weights, optimizer, losses, validation, exported "
    "files, scores) of a command that was never killed; nothing half-written is taken for whole or left"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="in all, with those of earlier calls")
    parser.add_argument("--only", nargs="*", default=[], help="targets, as lora, 'two ranks, lora', sweep")
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    folder = WORK / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    counts, phases, draw = *read_counts(), random.Random(asked.seed)
    with Server("tests.release.armed", *LATE_MODULES) as server, serving(folder / "page" / "runs") as page:
        targets = make_targets(folder, server, page)
        chosen = [name for name in targets if name in (asked.only or [name])]
        while sum(count["kills"] for count in counts.values()) < asked.kills:
            name = min(chosen, key=lambda each: counts.get(each, {}).get("kills", 0))
            inside, is_same = targets[name].live(draw)
            count = counts.setdefault(name, {"kills": 0, "commands": 0, "same bits": 0})
            count["kills"] += len(inside)
            count["commands"] += 1
            count["same bits"] += is_same
            phases.update(inside)
            if sum(count["commands"] for count in counts.values()) % 10 == 0 or not is_same:
                keep(counts, phases)
            if not is_same:
                raise SystemExit(f"{name}: another end; its folder is kept in {folder}")
    keep(counts, phases)


def keep(counts: dict[str, dict[str, int]], phases: Counter[str]) -> None:
    """Write down what was counted so far."""
    total = {key: sum(each[key] for each in counts.values()) for key in ("kills", "commands", "same bits")}
    result = {"total": total, "killed inside": dict(phases.most_common()), "targets": counts}
    write_result("kills", CLAIM, result, [[*total], [*total.values()]])


def read_counts() -> tuple[dict[str, dict[str, int]], Counter[str]]:
    """The counts of earlier calls, by target and by phase."""
    path = FOLDER / "results" / "kills.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if "killed inside" not in found:  # counts of another way to kill
        found = {"targets": {}, "killed inside": {}}
    return dict(found["targets"]), Counter(found["killed inside"])


@dataclass(frozen=True)
class Kill:
    """A kill so many seconds after the begin of a command.

    share: from 0 to 1, picks the one of its processes that is killed; None: the first and its group
    """

    seconds: float
    share: float | None = None


@dataclass(frozen=True)
class Ended:
    """The end of a command: its exit code, what it said, and the phases that it was killed in, if it was."""

    code: int
    said: str
    killed: bool
    inside: list[str]


@dataclass
class Target:
    """A command in a folder of its own that is killed, and what it comes to.

    made       folders and files that it makes, which are removed before each life of it
    outcome    what it came to
    checked    checks what is there after a kill
    processes  True if one of its processes may be killed alone
    on_a_run   True if it reads a run, which is trained first, and makes what is there whole or not at all
    """

    folder: Path
    server: Server
    words: list[str]
    outcome: Callable[[Path], Any]
    checked: Callable[[Path], object]
    made: tuple[str, ...] = ("runs", "mirror", "place", "out", "out.json")
    processes: bool = False
    on_a_run: bool = False
    page: Serving | None = None
    _whole: Any = None
    _seconds: float = 0.0
    _calls: int = 0

    def live(self, draw: random.Random) -> tuple[list[str], bool]:
        """Kill the command some times and let it end; what each kill met, and whether its end is the same."""
        if self._whole is None:
            self._learn()
        self._clear(with_cache=draw.random() < 0.25)
        met = list[str]()
        with watched(self.page) if self.page else contextlib.nullcontext():
            for _ in range(KILLS_A_COMMAND):
                share = draw.random() if self.processes and draw.random() < 0.7 else None
                if draw.random() < 0.5:
                    answer = self._run(kill=Kill(draw.uniform(0, self._seconds), share=share))
                else:
                    at = draw.randrange(self._calls)
                    answer = self._run(
                        first=f"from tests.release.armed import arm; arm('.', {at}, 'kill', 'told')"
                    )
                if not answer.killed:
                    break
                met.append((answer.inside or ["elsewhere"])[0])
                found = self.checked(self.folder)
                assert not self.on_a_run or found in (None, self._whole), "something half-made"
                if self.on_a_run and found is not None:
                    break
            else:
                self._run()
        return met, self.outcome(self.folder) == self._whole and not self._leftovers()

    def _learn(self) -> None:
        """Run the command twice undisturbed: its seconds, its calls to the disk, and what it comes to."""
        if self.on_a_run:
            whole = self.words
            self.words = ["train", "recipe.toml", "--runs", "trained"]
            self._run()
            (run,) = list_runs(self.folder / "trained")
            self.words = [word.format(run=run.name) for word in whole]
        for first in ("", "from tests.release.armed import note; note('.', 'calls')"):
            self._clear(with_cache=True)
            began = time.monotonic()
            self._run(first=first)
            self._seconds = time.monotonic() - began
            self._whole, before = self.outcome(self.folder), self._whole
        assert self._whole == before, "two commands that nobody disturbed differ"
        self._calls = len((self.folder / "calls").read_text().splitlines())

    def _run(self, *, first: str = "", kill: Kill | None = None) -> Ended:
        """Run the command after some code, and kill it where that is asked for."""
        marks, told = Phases(self.folder / "phases", made=True), self.folder / "told"
        told.unlink(missing_ok=True)
        first = f"from tests.release.armed import mark; mark('phases')\n{first}"
        with tempfile.TemporaryFile() as said:
            process = self.server.etude(
                self.words, first=first, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env={**os.environ, **environment_of(self.folder)}, process_group=0,
            )  # fmt: skip
            inside = wait(process, kill, marks)
            said.seek(0)
            text, killed = said.read().decode(errors="replace"), inside is not None or told.exists()
            ended = Ended(process.returncode, text, killed, marks.inside() if inside is None else inside)
        assert (killed or ended.code == 0) and "Traceback" not in text, ended
        return ended

    def _clear(self, *, with_cache: bool) -> None:
        for name in (*self.made, "calls", "told", "phases", *(["cache"] if with_cache else [])):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _leftovers(self) -> list[Path]:
        found = [*self.folder.rglob("*.tmp"), *self.folder.rglob(".*.new")]
        return [path for path in found if "cache" not in path.parts]


def wait(process: "subprocess.Popen[bytes]", kill: Kill | None, marks: Phases) -> list[str] | None:
    """Wait until a process has ended; returns what it and its forks were inside of when it was killed here."""
    began, inside = time.monotonic(), None
    while process.poll() is None:
        passed = time.monotonic() - began
        assert passed < LONGEST_SECONDS, "it does not end"
        if kill is not None and inside is None and passed >= kill.seconds:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if kill.share is None:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    crew = [
                        process.pid,
                        *(each.pid for each in psutil.Process(process.pid).children(recursive=True)),
                    ]
                    os.kill(crew[int(kill.share * len(crew))], signal.SIGKILL)
            inside = marks.inside()
        time.sleep(0.002)
    return inside


def environment_of(folder: Path) -> dict[str, str]:
    return {"ETUDE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def make_targets(folder: Path, server: Server, page: Serving) -> dict[str, Target]:
    """All that is killed, by name."""
    kinds = {name: change(recipe, SHORT) for name, recipe in recipes(folder / "data").items()}
    found = {}

    def add(name: str, recipe: dict[str, Any], **more: Any) -> None:
        place = folder / name.replace(", ", "-").replace(" ", "-")
        place.mkdir(exist_ok=True)
        (place / "recipe.toml").write_text(tomlkit.dumps(recipe))
        words = ["train", "recipe.toml", "--runs", "runs"]
        found[name] = Target(place, server, words, numbers_of, read_runs, **more)

    for name, recipe in kinds.items():
        add(name, recipe)
    add("mirror", change(kinds["adamw"], {"run": {"mirror": "mirror"}}))
    add("page", kinds["adamw"], page=page)
    for name in RANKS:
        two = change(kinds[name], {"train.parallel": "shard", "train.devices": 2})
        add(f"two ranks, {name}", two, processes=True)
    place = folder / "sweep"
    place.mkdir()
    make(place, folder / "data" / "corpus.jsonl", {"train.steps": [8, 12]}, {"model.n_layer": 1})
    words = ["sweep", "run", "sweep.toml", "--folder", "place"]
    found["sweep"] = Target(place, server, words, trials_of, read_trials, processes=True)
    on_a_run = {
        "export": ("adamw", ["export", "{run}@last", "out", "--to", "hf"], exported),
        "merge": ("lora", ["export", "{run}@last", "out", "--to", "merged"], exported),
        "quantize": ("adamw", ["export", "{run}@last", "out", "--to", "int8"], exported),
        "evaluation": (
            "classification",
            ["evaluate", "{run}@last", "--on", str(folder / "data" / "labelled.jsonl"), "--out", "out.json"],
            scored,
        ),
    }
    for name, (kind, words, outcome_of) in on_a_run.items():
        place = folder / name
        place.mkdir()
        (place / "recipe.toml").write_text(tomlkit.dumps(kinds[kind]))
        found[name] = Target(
            place, server, [*words, "--runs", "trained"], outcome_of, outcome_of, on_a_run=True
        )
    return found


def read_runs(folder: Path) -> None:
    """Read what a killed run left, as pages and commands do."""
    for run in list_runs(folder / "runs") if (folder / "runs").is_dir() else []:
        assert run.state in ("killed", "failed", "stopped", "finished", "running"), run.state
        bits_of(run)


def numbers_of(folder: Path) -> Any:
    """The numbers of the one run in a folder, but for the checkpoints that it may have removed."""
    (run,) = list_runs(folder / "runs")
    assert run.state == "finished", run.state
    bits = bits_of(run)
    name = max(bits.checkpoints)
    assert (run.path / "report" / "report.md").is_file()
    return name, bits.checkpoints[name], bits.losses, bits.validation


def read_trials(folder: Path) -> None:
    """Read what a killed sweep left."""
    if (folder / "place" / "sweep.toml").exists():
        SweepFolder(folder / "place").read(load_sweep(folder / "sweep.toml").trials)


def trials_of(folder: Path) -> Any:
    """The numbers of the trials of a sweep."""
    found = SweepFolder(folder / "place").read(load_sweep(folder / "sweep.toml").trials)
    assert (folder / "place" / "report" / "report.md").is_file()
    return {name: outcome(state.run) for name, state in found.items() if state.is_finished}


def exported(folder: Path) -> Any:
    """The files of an exported model, but for its card, which has a date; None where there is none."""
    out = folder / "out"
    if not out.exists():
        return None
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert files.pop("README.md")
    return files


def scored(folder: Path) -> Any:
    """The figures of an evaluation; None where there are none."""
    path = folder / "out.json"
    return json.loads(path.read_text()) if path.exists() else None


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

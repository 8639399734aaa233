"""TrainCheck's 20 silent errors, as far as etude's loop can have them: is each named within one log interval?

python benchmarks/watch/silent.py [--only PATTERN]

Each is put into a tiny run of 100 steps with a log step every 5, of one process or of two ranks; beside each
stands the same run without it. The errors are those of `silent_faults.py`. Writes results/watch_silent.json.
"""

import argparse
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import FOLDER, write_result

from etude import Options, Training
from etude.errors import EtudeError
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import list_runs
from watch.grid import quick
from watch.meddling import meddled
from watch.silent_faults import ERRORS, NONE, Own, Silent, own_loss

CLAIM = "watch: the analogues of TrainCheck's silent errors are named within one log interval"
STEPS, LOG_EVERY = 100, 5
_PATIENCE = 120  # seconds, for ranks that wait for each other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="errors whose name has this pattern")
    parser.add_argument("--rank", nargs=2, metavar=("ERROR", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        name, folder = options.rank
        run(ERRORS[name.removeprefix("clean-")], not name.startswith("clean-"), Path(folder))
        return
    for name, error in ERRORS.items():
        if not error.none and re.search(options.only, name):
            made = tried(name, error)
            result = read_results() | {name: made}
            print(name, result[name], flush=True)
            write_result("watch_silent", CLAIM, {"errors": result, "without_analogue": NONE}, table(result))


def tried(name: str, error: Silent) -> dict[str, Any]:
    """An error and its clean twin: alarms, and steps from the onset to the first that names it."""
    faulty, clean = judge(name, error), judge(f"clean-{name}", error)
    delay = next((step - error.onset for step, kind in faulty if kind in error.kinds), None)
    return {
        "cause": error.cause, "analogue": error.analogue, "ranks": error.ranks, "onset": error.onset,
        "found": faulty, "delay": delay, "clean": clean,
    }  # fmt: skip


def read_results() -> dict[str, Any]:
    """The errors that were tried before; a part of them may be tried again."""
    path = FOLDER / "results" / "watch_silent.json"
    return dict(json.loads(path.read_text())["errors"]) if path.is_file() else {}


def table(result: dict[str, Any]) -> list[list[str]]:
    rows = [["error", "analogue", "found by", "steps after its onset", "clean twin"]]
    for name, error in ERRORS.items():
        if name in result:
            made = result[name]
            by = dict.fromkeys(kind for _, kind in made["found"] if kind in error.kinds)
            heard = ", ".join(kind for _, kind in made["clean"]) or "silent"
            rows.append([name, error.analogue, ", ".join(by) or "nothing", str(made["delay"]), heard])
        elif error.none:
            rows.append([name, f"none: {error.none}", "", "", ""])
    named = sum(each["delay"] is not None and each["delay"] <= LOG_EVERY for each in result.values())
    heard_one = sum(bool(each["clean"]) for each in result.values())
    of = f"{len(result)} of {len(ERRORS)}"
    rows.append(["all", of, f"{named} within one log interval", "", f"{heard_one} heard an alarm"])
    return rows


def judge(name: str, error: Silent) -> list[tuple[int, str]]:
    """Train an error, or its clean twin: steps and kinds of all alarms."""
    with tempfile.TemporaryDirectory(prefix="silent-") as folder:
        home = Path(folder)
        write_rows(home / "rows.jsonl")
        if error.ranks == 1:
            run(error, not name.startswith("clean-"), home)
        else:
            run_ranks(name, error.ranks, home)
        events = [entry.event for entry in list_runs(home / "runs")[0].ledger().entries]
    alarms = [each for each in events if isinstance(each, Finding) and each.severity in ("warning", "error")]
    return [(each.step, each.kind) for each in alarms if each.kind]


def run_ranks(name: str, ranks: int, home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, "--rank", name, str(home)]
    started = [
        subprocess.Popen(
            command, env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.DEVNULL
        )
        for rank in range(ranks)
    ]
    for each in started:
        try:
            each.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            for other in started:
                other.kill()


def run(error: Silent, is_faulty: bool, home: Path) -> None:
    """Train 100 steps, with the error or without it."""
    recipe = recipe_of(home, error)
    model = loss = None
    if error.is_own:
        model, loss = Own(is_faulty), own_loss
    weights = None
    if error.is_continued:
        with quick():
            first = Training(recipe, Options(runs=home / "first"))
            for _ in first:
                pass
        weights = str(first.run.path)
    options = Options(runs=home / "runs", model=model, loss=loss, weights=weights)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quick())
        if is_faulty and error.patch:
            stack.enter_context(error.patch())
        if is_faulty and error.meddle:
            stack.enter_context(meddled(error.meddle))
        try:
            for _ in Training(recipe, options):
                pass
        except EtudeError as ended:
            print(f"ended: {ended}", file=sys.stderr)


def write_rows(path: Path) -> None:
    """The beginnings of the files of Python's library."""
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [each.read_text("utf-8", "replace")[:1200] for each in library]
    random.Random(1).shuffle(texts)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))


def recipe_of(home: Path, error: Silent) -> Recipe:
    """A small decoder."""
    rows = home / "rows.jsonl"
    values: dict[str, Any] = {
        "name": "silent", "model": {"n_layer": 2, "n_head": 2, "n_embd": 64},
        "tokenizer": {"train_vocab_size": 512},
        "data": {"train": [{"path": str(rows)}], "validation_ratio": 0.1},
        "train": {"steps": STEPS, "seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "device": "cpu",
                  "precision": "fp32", "devices": error.ranks},
        "optim": {"learning_rate": 1e-2}, "schedule": {"warmup_steps": 10},
        "evaluate": {"every_steps": 25}, "checkpoint": {"every_steps": 50},
        "records": {"log_every_steps": LOG_EVERY},
    }  # fmt: skip
    for key, value in error.changes.items():
        section, name = key.split(".")
        values[section][name] = value
    return recipe_from(values)


if __name__ == "__main__":
    main()

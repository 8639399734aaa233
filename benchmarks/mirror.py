"""Measure a mirror: killed at 30 points of a run, over a place that hides and loses files, and short sessions.

    python -m benchmarks.mirror --out benchmarks/results/mirror.json

Each kill is a SIGKILL in the middle of the n-th operation on the mirror of a whole run in a process of its
own; then the run folder is deleted, made again from the mirror, and trained to its end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tomlkit

from etude import session as sessions
from etude.control import mirror as mirrors
from etude.control.place import open_place
from etude.control.restore import restore
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.folder import list_checkpoints
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.places import Odd
from tests.processes import in_a_fork
from tests.recipes import tiny

_KILLS = 30
_WEIGHTS = ("model.safetensors", "optimizer.safetensors")


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    values = {"train.steps": 24, "evaluate.every_steps": 6, "checkpoint.every_steps": 2}
    return recipe_from(tiny(folder / "corpus.jsonl", {**values, **changes}))


def bits(run: Run) -> list[bytes]:
    last = list_checkpoints(run.checkpoints)[-1]
    return [(last / name).read_bytes() for name in _WEIGHTS]


def train_over(place_of: Any, recipe: Recipe, options: Options, settle: float) -> Run:
    """Train with a mirror in a place of the tests."""
    session: Any = sessions
    defaults: Any = mirrors.Mirror.__init__.__kwdefaults__
    before, usual = session.open_place, defaults["settle"]
    session.open_place, defaults["settle"] = place_of, settle
    try:
        return run_recipe(recipe, options).run
    finally:
        session.open_place, defaults["settle"] = before, usual


def killed(folder: Path, wanted: list[bytes]) -> dict[str, Any]:
    """Kill at 30 operations of the mirror, spread over the run."""
    recipe = recipe_of(folder, **{"run.mirror": str(folder / "mirror")})
    counted: list[Odd] = []

    def place(kill_at: int) -> Any:
        def make(mirror: str, name: str) -> Odd:
            counted.append(Odd(open_place(mirror, name), kill_at=kill_at))
            return counted[-1]

        return make

    train_over(place(-1), recipe, Options(runs=folder / "count"), 0.0)
    whole = len(counted[-1].operations)
    rows = []
    for number in range(_KILLS):
        shutil.rmtree(folder / "mirror", ignore_errors=True)
        runs, at = folder / f"killed-{number}", 4 + number * (whole - 5) // (_KILLS - 1)
        code = in_a_fork(partial(train_over, place(at), recipe, Options(runs=runs), 0.0))
        (run,) = list_runs(runs)
        saved = [path.name for path in list_checkpoints(run.checkpoints)]
        shutil.rmtree(runs)
        try:
            again, problems = restore(str(folder / "mirror"), runs)
        except Exception as error:  # before the first copy was whole
            rows.append(
                {"operation": at, "code": code, "saved": saved, "restored": None, "why": str(error)[:120]}
            )
            continue
        newest = list_checkpoints(again.checkpoints)[-1].name
        ended = run_recipe(recipe_of(folder), Options(runs=runs, resume=again)).run
        rows.append({
            "operation": at, "code": code, "saved": saved, "restored": newest, "damaged": problems,
            "is_same": bits(ended) == wanted,
        })  # fmt: skip
    return {"operations": whole, "kills": rows}


def hostile(folder: Path, wanted: list[bytes]) -> dict[str, Any]:
    """New files hidden for 5 s, and one write in a hundred dropped, over runs with 300 writes."""
    rows = []
    for number in range(3):
        mirror = folder / f"hostile-{number}"
        places: list[Odd] = []

        def make(given: str, name: str, number: int = number, places: list[Odd] = places) -> Odd:
            lost = 11 + number  # one in a hundred, and one that a run is sure to come to
            places.append(Odd(open_place(given, name), hidden=5.0, lose=lambda at: at % 100 == lost))
            return places[-1]

        recipe = recipe_of(folder, **{"run.mirror": str(mirror)})
        run = train_over(make, recipe, Options(runs=folder / f"runs-{number}"), 5.5)
        noticed = [
            entry.event.evidence
            for entry in run.ledger().entries
            if isinstance(entry.event, Finding) and entry.event.what == "the mirror lost a write"
        ]
        shutil.rmtree(run.path.parent)
        again, problems = restore(str(mirror), folder / f"again-{number}")
        rows.append({
            "lost": places[0].lost, "noticed": noticed, "damaged": problems, "is_same": bits(again) == wanted,
            "writes": len(places[0]._written),
        })  # fmt: skip
    return {"hidden_seconds": 5.0, "runs": rows}


def limited(folder: Path) -> dict[str, Any]:
    """A run of about a minute in sessions of 20 s, and whole."""
    values = {"model.n_embd": 256, "model.n_ffn": 1024, "train.steps": 110, "evaluate.every_steps": 25}
    recipe = recipe_of(
        folder,
        **values,
        **{"train.seq_len": 128, "train.global_batch_size": 16, "checkpoint.every_steps": 50},
    )
    path = folder / "limited.toml"
    path.write_text(tomlkit.dumps(recipe.to_dict()))
    started = time.monotonic()
    whole = run_recipe(recipe, Options(runs=folder / "whole-limited")).run
    seconds = time.monotonic() - started
    rows: list[dict[str, Any]] = []
    while len(rows) < 12 and (not rows or rows[-1]["code"] == 75):
        began = time.monotonic()
        words = ["train", str(path), "run.session_limit=20s", "--runs", str(folder / "limited")]
        ended = subprocess.run(
            [sys.executable, "-m", "etude", *words], capture_output=True, check=False, env=os.environ
        )
        rows.append(
            {
                "code": ended.returncode,
                "seconds": round(time.monotonic() - began, 1),
                "end": ended.stderr.decode()[-300:],
            }
        )
    (run,) = list_runs(folder / "limited")
    return {"whole_seconds": round(seconds, 1), "sessions": rows, "is_same": bits(run) == bits(whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=["killed", "hostile", "limited"], nargs="+")
    given = parser.parse_args()
    out = given.out
    with tempfile.TemporaryDirectory(prefix="etude-mirror-") as name:
        folder = Path(name)
        os.environ["ETUDE_CACHE"] = str(folder / "cache")
        write_corpus(folder / "corpus.jsonl")
        wanted = bits(run_recipe(recipe_of(folder), Options(runs=folder / "whole")).run)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "killed": lambda: killed(folder, wanted),
            "hostile": lambda: hostile(folder, wanted),
            "limited": lambda: limited(folder),
        }
        found = json.loads(out.read_text()) if given.part and out.exists() else {}
        for what in given.part or parts:
            found[what] = parts[what]()
            out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

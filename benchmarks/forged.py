"""Forge runs, and count those that `etude verify RUN --replay` finds.

Each forged run is an honest one with a loss or a learning rate edited, a weight moved by one unit in the last
place, or a row of its data exchanged, and all checksums, heads and manifests made anew. It counts as found if
the replay of the interval of the forgery tells it; the honest run must never be told.

    python -m benchmarks.forged --runs 100 --out benchmarks/results/forged.json
"""

import argparse
import hashlib
import json
import random
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from etude.engine.tensor_files import read_tensors, safetensors
from etude.plan import make_plan
from etude.records.store import Run
from etude.replay import replay_intervals, replayable_intervals

Change = Callable[[dict[str, Any]], None]


def edit_record(run: Path, kind: str, step: int, change: Change) -> None:
    """Change a record of a step, and make every checksum and head of the journal anew."""

    def edit(record: dict[str, Any]) -> None:
        if record["type"] == kind and record.get("step") == step:
            change(record)

    rewrite(run, edit)


def rewrite(run: Path, edit: Change) -> None:
    """Rewrite a journal, with checksums and heads that hold; also those of manifests and the lease."""
    path, heads, old_end = run / "journal.jsonl", dict[int, dict[str, Any]](), 0
    new, digest = b"", hashlib.sha256()
    for line in path.read_bytes().splitlines(keepends=True):
        old_end += len(line)
        record = json.loads(line)
        del record["crc"]
        edit(record)
        if head := record.get("journal"):
            record["journal"] = heads[head["bytes"]]
        body = json.dumps(record, ensure_ascii=False)[:-1].encode()
        made = body + b', "crc": "%08x"}\n' % zlib.crc32(body)
        new += made
        digest.update(made)
        heads[old_end] = {"bytes": len(new), "sha256": digest.hexdigest()}
    path.write_bytes(new)
    for file in [*run.glob("checkpoints/*/manifest.json"), run / "lease.json"]:
        values = json.loads(file.read_text())
        if head := values.get("journal"):
            file.write_text(json.dumps({**values, "journal": heads[head["bytes"]]}))
    shutil.rmtree(run / "report", ignore_errors=True)


def edit_loss(run: Path, step: int) -> None:
    """Make the loss of a step a little lower."""
    edit_record(run, "step", step, lambda record: record.update(loss=record["loss"] * 0.999))


def edit_rate(run: Path, step: int) -> None:
    """Make the learning rate of a step a little lower."""
    edit_record(
        run, "step", step, lambda record: record.update(learning_rate=record["learning_rate"] * 0.999)
    )


def move_weight(run: Path, step: int) -> None:
    """Move one weight of the checkpoint of a step by one unit in the last place."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    name = max(tensors, key=lambda each: tensors[each].numel())
    values = tensors[name].numpy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))
    file.write_bytes(b"".join(bytes(piece) for piece in safetensors(tensors)))
    seal(folder, file)


def seal(folder: Path, file: Path) -> None:
    """Make the entry of a file in a manifest anew."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = file.read_bytes()
    manifest["files"][file.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def exchange_rows(run: Path, rows: Path, place: int) -> None:
    """Put another text in the place of a row of the data, and the fingerprint of these into all records."""
    lines = rows.read_text().splitlines()
    lines[place] = lines[place - 1]
    rows.write_text("\n".join([*lines, ""]))
    recipe = Run(run).recipe
    fingerprint = make_plan(recipe, today=Run(run).day).fingerprint
    for file in [run / "environment.json", *run.glob("checkpoints/*/state.json")]:
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "data_fingerprint": fingerprint}))
        if file.name == "state.json":
            seal(file.parent, file)

    def edit(record: dict[str, Any]) -> None:
        if record["type"] == "data":
            record["fingerprint"] = fingerprint

    rewrite(run, edit)


def main() -> None:
    """Forge and verify runs, and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/forged.json"))
    given = parser.parse_args()
    from etude.recipe.load import recipe_from
    from etude.run import run_recipe
    from etude.start import Options
    from tests.bases import write_corpus
    from tests.recipes import tiny

    draw = random.Random(given.seed)
    found: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = write_corpus(place / "corpus.jsonl")
        kept = rows.read_text()
        recipe = recipe_from(tiny(rows, {"checkpoint.keep": "all", "checkpoint.every_steps": 2}))
        started = time.perf_counter()
        honest = run_recipe(recipe, Options(runs=place / "runs")).run
        trained = time.perf_counter() - started
        started = time.perf_counter()
        every = replayable_intervals(honest)
        told = replay_intervals(honest, len(every), 0).deviations
        seconds = {"training": trained, "replay of all intervals": time.perf_counter() - started}
        false = 0
        for number in range(given.runs):
            kind = ("loss", "weight", "rate", "row")[number % 4]
            run = Path(shutil.copytree(honest.path, place / f"forged-{number}" / honest.name))
            step = draw.randrange(1, 13)
            intervals = [each for each in every if each.first < step <= each.last]
            if kind == "weight":
                intervals = [draw.choice([each for each in every if each.last])]
                move_weight(run, intervals[0].last)
            elif kind == "row":
                intervals = every
                exchange_rows(run, rows, draw.randrange(1, len(kept.splitlines())))
            else:
                {"loss": edit_loss, "rate": edit_rate}[kind](run, step)
            caught = replay_intervals(Run(run), 0, 0, intervals).deviations
            found.setdefault(kind, []).append(bool(caught))
            if kind == "row":
                rows.write_text(kept)
            elif number < 8:  # honest intervals of a forged run are not told
                others = [each for each in every if each not in intervals and each.first != intervals[0].last]
                false += len(replay_intervals(Run(run), 0, 0, others[:1]).deviations)
            shutil.rmtree(run.parent)
    result = {
        "forged": {kind: {"runs": len(each), "found": sum(each)} for kind, each in found.items()},
        "honest run": {"intervals": len(every), "deviations": len(told), "in honest intervals": false},
        "seconds": seconds,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Forge runs, and count those that `etude verify RUN --replay` finds.

Each forged run is an honest one with one thing forged. Some leave the heads as they are (an edited or removed
line, rows taken out of the data, an edited report), others make all checksums, heads and manifests anew. A
forgery counts as found if the run is told as it lies there, or by the replay of the interval of the forgery;
the honest run must never be told. Those that cannot be told are forged and counted, too.

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
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from etude.engine.tensor_files import read_tensors, safetensors
from etude.plan import make_plan
from etude.records.store import Run
from etude.replay import Interval, replay_intervals, replayable_intervals
from etude.report.history import read_history
from etude.report.verifying import verify_run
from etude.report.write import make_report, write_report

DAY = 86_400.0
Change = Callable[[dict[str, Any]], bool | None]


def edit_record(run: Path, kind: str, step: int, change: Change) -> None:
    """Change a record of a step, and make every checksum and head of the journal anew."""

    def edit(record: dict[str, Any]) -> None:
        if record["type"] == kind and record.get("step") == step:
            change(record)

    rewrite(run, edit)


def rewrite(run: Path, edit: Change) -> None:
    """Rewrite a journal, with checksums and heads that hold; also those of manifests and the lease.

    edit: changes a record; True takes it out
    """
    path, heads, old_end = run / "journal.jsonl", dict[int, dict[str, Any]](), 0
    new, digest = b"", hashlib.sha256()
    for line in path.read_bytes().splitlines(keepends=True):
        old_end += len(line)
        record = json.loads(line)
        del record["crc"]
        is_out = edit(record)
        if head := record.get("journal"):
            record["journal"] = heads[head["bytes"]]
        made = b"" if is_out else checked(record)
        new += made
        digest.update(made)
        heads[old_end] = {"bytes": len(new), "sha256": digest.hexdigest()}
    path.write_bytes(new)
    for file in [*run.glob("checkpoints/*/manifest.json"), run / "lease.json"]:
        values = json.loads(file.read_text())
        if head := values.get("journal"):
            file.write_text(json.dumps({**values, "journal": heads[head["bytes"]]}))
    shutil.rmtree(run / "report", ignore_errors=True)


def checked(record: dict[str, Any]) -> bytes:
    """A line of a journal with a checksum that holds."""
    body = json.dumps(record, ensure_ascii=False)[:-1].encode()
    return body + b', "crc": "%08x"}\n' % zlib.crc32(body)


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


def swap_checkpoints(run: Path, step: int, other: int) -> None:
    """Exchange the weights of two checkpoints."""
    folders = [run / "checkpoints" / f"step-{each:06d}" for each in (step, other)]
    files = [folder / "model.safetensors" for folder in folders]
    contents = [file.read_bytes() for file in files]
    for folder, file, content in zip(folders, files, reversed(contents)):
        file.write_bytes(content)
        seal(folder, file)


def drop_evaluation(run: Path, step: int) -> None:
    """Take the record of an evaluation out."""
    rewrite(run, lambda record: record["type"] == "evaluation" and record["step"] == step)


def move_dates(run: Path, seconds: float, *, everywhere: bool = False) -> None:
    """Move the time of all records; everywhere: also that of run.json and lease.json."""

    def edit(record: dict[str, Any]) -> None:
        if "time" in record:
            record["time"] += seconds

    rewrite(run, edit)
    if everywhere:
        info = json.loads((run / "run.json").read_text())
        created = datetime.fromisoformat(info["created"]) + timedelta(seconds=seconds)
        (run / "run.json").write_text(json.dumps({**info, "created": created.isoformat()}))
        lease = json.loads((run / "lease.json").read_text())
        moved = {key: lease[key] + seconds for key in ("heartbeat", "started")}
        (run / "lease.json").write_text(json.dumps({**lease, **moved}))


def edit_line(run: Path, step: int) -> None:
    """Edit the loss of a step and its checksum, and leave all heads as they are."""
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for place, line in enumerate(lines):
        record = json.loads(line)
        if record["type"] == "step" and record["step"] == step:
            del record["crc"]
            lines[place] = checked({**record, "loss": record["loss"] * 0.999})
    path.write_bytes(b"".join(lines))


def remove_line(run: Path, place: int) -> None:
    """Take a line out of the journal."""
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:place], *lines[place + 1 :]]))


def edit_report(run: Path, draw: random.Random) -> None:
    """Edit the report in one of the ways of `tests.report.mutated`."""
    from tests.report.mutated import EDITS, mutate

    history, text, path = read_history(Run(run)), None, run / "report/report.md"
    report = replace(make_report(history), text=path.read_text())
    while text is None:
        text = mutate(draw.choice(list(EDITS)), report, history, draw)
    path.write_text(text)


def make_faster(run: Path) -> None:
    """Halve all times that a run measured of itself."""

    def edit(record: dict[str, Any]) -> None:
        for key in ("seconds", "wait_seconds"):
            if record["type"] in ("step", "evaluation") and key in record:
                record[key] /= 2

    rewrite(run, edit)


# The kinds of forgery and the number of each in a hundred; those of the first line make all heads anew.
KINDS = {
    "loss": 12, "weight": 12, "rate": 12, "row exchanged": 8, "checkpoints swapped": 8, "evaluation dropped": 8,
    "dates moved": 8, "rows removed": 8, "line edited": 8, "line removed": 8, "report edited": 8,
}  # fmt: skip


def forge(kind: str, run: Path, rows: Path, every: list[Interval], draw: random.Random) -> list[Interval]:
    """Forge a run; returns the intervals of the forgery, whose replay has to tell it."""
    step, last = draw.randrange(1, 13), [each for each in every if each.last]
    kept = [each.last for each in last]
    if kind == "weight":
        last = [draw.choice(last)]
        move_weight(run, last[0].last)
        return last
    if kind == "checkpoints swapped":
        one, other = draw.sample(kept, 2)
        swap_checkpoints(run, one, other)
        return [each for each in every if each.last in (one, other)]
    if kind == "row exchanged":
        exchange_rows(run, rows, draw.randrange(1, 60))
        return every
    if kind == "rows removed":
        lines = rows.read_text().splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        rows.write_text("".join(lines))
        return every[:1]
    if kind == "evaluation dropped":
        step = draw.choice([6, 12])
        drop_evaluation(run, step)
    elif kind == "dates moved":
        move_dates(run, draw.choice([-400, -30, -2, 3, 90]) * DAY)
        return []
    elif kind == "line removed":
        remove_line(run, draw.randrange(1, 12))
        return []
    elif kind == "report edited":
        edit_report(run, draw)
        return []
    else:
        {"loss": edit_loss, "rate": edit_rate, "line edited": edit_line}[kind](run, step)
    return [each for each in every if each.first < step <= each.last]


def main() -> None:
    """Forge and verify runs, and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100, help="about so many, of all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/forged.json"))
    given = parser.parse_args()
    from etude.recipe.load import recipe_from
    from etude.run import run_recipe
    from etude.start import Options
    from tests.bases import write_corpus
    from tests.recipes import tiny

    draw, found = random.Random(given.seed), dict[str, list[str]]()
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
        told = [*replay_intervals(honest, len(every), 0).deviations, *verify_run(honest.path).deviations]
        seconds = {"training": trained, "replay of all intervals": time.perf_counter() - started}
        for kind, number in KINDS.items():
            for turn in range(max(round(number * given.runs / 100), 1)):
                run = Path(shutil.copytree(honest.path, place / f"{kind}-{turn}" / honest.name))
                intervals = forge(kind, run, rows, every, draw)
                found.setdefault(kind, []).append(_how_found(run, intervals))
                rows.write_text(kept)
                shutil.rmtree(run.parent)
        left = {}
        for what, edit in UNTOLD.items():
            run = Path(shutil.copytree(honest.path, place / "left" / honest.name))
            edit(run)
            write_report(Run(run), html=True)
            left[what] = _how_found(run, every)
            shutil.rmtree(run.parent)
    result = {
        "forged": {
            kind: {"runs": len(each), "found": len([*filter(None, each)]), "by the folder": each.count("folder")}
            for kind, each in found.items()
        },
        "all": {"runs": sum(map(len, found.values())), "found": sum(len([*filter(None, e)]) for e in found.values())},
        "honest run": {"intervals": len(every), "deviations": len(told)},
        "not to be told": left, "seconds": seconds,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


# What no verification can tell: measured times, and a date that all files have.
UNTOLD: dict[str, Callable[[Path], None]] = {
    "all dates moved in all files": lambda run: move_dates(run, -30 * DAY, everywhere=True),
    "all times of steps halved": make_faster,
}


def _how_found(run: Path, intervals: list[Interval]) -> str:
    """`folder` or `replay` by what tells a forgery; "" if nothing does."""
    if verify_run(run).deviations:
        return "folder"
    return "replay" if intervals and replay_intervals(Run(run), 0, 0, intervals).deviations else ""


if __name__ == "__main__":
    main()

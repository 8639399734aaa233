"""Time, memory and disk of short runs against what `etude estimate` said before them, and they of themselves.

Seven runs of some seconds: a decoder from scratch, with rare, frequent and constant checkpoints, LoRA, labels,
pairs. Each is estimated by steps tried here, then trained by `etude train` in a process of its own. Beside it
the parts of both, and what the command took beside the record: before its first line and after its last.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import FOLDER, median, write_result

sys.path.insert(0, str(FOLDER.parent))
from etude.recipe.load import recipe_from, to_toml
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Step
from etude.records.ledger import Entry
from etude.records.store import list_runs
from etude.report.grades import grade_runs
from tests import bases, recipes

CLAIM = "Signed error of estimates and forecasts of runs of some seconds"
ETUDE = [sys.executable, "-m", "etude"]
LARGE = {"model.n_layer": 6, "model.n_embd": 256, "model.n_ffn": 768, "model.n_head": 4, "train.seq_len": 128}
SHORT = {"train.seq_len": 32, "train.global_batch_size": 4, "evaluate.every_steps": 30}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        result = {title: _try(title, recipe, Path(name)) for title, recipe in _cases(Path(name)).items()}
    table = [["run", "took s", "estimate s", "error", "forecast s", "error", "memory error", "disk error"]]
    for title, found in result.items():
        errors = [found[key] for key in ("forecast_error", "memory_error", "disk_error")]
        table.append([
            title, found["seconds"], found["estimate"], f"{100 * found['estimate_error']:+.0f} %",
            found["forecast"], *(f"{100 * error:+.0f} %" for error in errors),
        ])  # fmt: skip
    middle = {
        key: median([abs(found[key]) for found in result.values()])
        for key in ("estimate_error", "forecast_error")
    }
    load = round(os.getloadavg()[1], 1)
    write_result("forecast", CLAIM, {"load": load, "median_absolute": middle, **result}, table)


def _try(title: str, recipe: Recipe, folder: Path) -> dict[str, Any]:
    path, runs = folder / f"{title}.toml", folder / title
    path.write_text(to_toml(recipe))
    words = [*ETUDE, "estimate", str(path), "--json", "--runs", str(runs)]
    estimated = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    said, begun = estimated["forecast"]["seconds"], time.time()
    subprocess.run([*ETUDE, "train", str(path), "--runs", str(runs)], check=True, capture_output=True)
    ended = time.time()
    ((before, grade), _) = grade_runs(runs)
    (run,) = list_runs(runs)
    took, entries = grade.measured["seconds"], run.ledger().entries
    assert took
    return {
        "parts": _parts(entries), "estimated_parts": _parts_of(estimated["forecast"]),
        "before_record": round(entries[0].time - begun, 2), "after_record": round(ended - entries[-1].time, 2),
        "estimated_beside": estimated["beside_seconds"],
        "seconds": round(took, 2), "estimate": round(said, 2), "estimate_error": round(said / took - 1, 3),
        "at_start": round(before.forecast["seconds"], 2),
        "at_start_error": round(before.errors["seconds"] or 0, 3),
        "traced_memory_error": round(before.errors["memory_bytes"] or 0, 3),
        "forecast": round(grade.forecast["seconds"], 2), "forecast_error": round(grade.errors["seconds"] or 0, 3),
        "memory_error": round(grade.errors["memory_bytes"] or 0, 3),
        "disk_error": round(grade.errors["disk_bytes"] or 0, 3),
    }  # fmt: skip


def _parts(entries: list[Entry]) -> dict[str, float]:
    """Seconds of a run by what it did: before its first step, steps, evaluations, and after the last step."""
    steps = [(entry.event, entry.time) for entry in entries if isinstance(entry.event, Step)]
    evaluations = [(each.event.seconds, each.time) for each in entries if isinstance(each.event, Evaluation)]
    before = steps[0][1] - steps[0][0].seconds - entries[0].time
    in_steps = sum(step.seconds for step, _ in steps)
    in_evaluations = sum(seconds for seconds, moment in evaluations if moment > steps[0][1])
    after = entries[-1].time - steps[-1][1]
    rest = entries[-1].time - entries[0].time - before - in_steps - in_evaluations - after
    parts = {"before": before, "steps": in_steps, "evaluations": in_evaluations, "after": after, "rest": rest}
    return {name: round(seconds, 2) for name, seconds in parts.items()}


def _parts_of(forecast: dict[str, Any]) -> dict[str, float]:
    others, saves = forecast["evaluation_seconds"], forecast["checkpoint_seconds"]
    return {
        "steps": round(forecast["seconds"] - others, 2),
        "checkpoints": saves,
        "rest": round(others - saves, 2),
    }


def _cases(folder: Path) -> dict[str, Recipe]:
    corpus = bases.write_corpus(folder / "corpus.jsonl", 600)
    rows, qwen = bases.write_instructions(folder / "rows.jsonl", 200), bases.write_qwen2(folder / "qwen2")
    labels = {"model.n_layer": 4, "model.n_embd": 256, "train.seq_len": 96, "train.steps": 200}
    pairs = {"model.n_layer": 3, "model.n_embd": 192, "train.steps": 150, "evaluate.answers": 8}
    lora = {"adapter": {"rank": 8}, "evaluate.answer_tokens": 16}
    return {
        "decoder": _decoder(corpus, LARGE | {"train.steps": 120, "checkpoint.every_steps": 60}),
        "decoder, saved every 5": _decoder(corpus, LARGE | {"train.steps": 60, "checkpoint.every_steps": 5}),
        "decoder, saved always": _decoder(
            corpus, LARGE | SHORT | {"train.steps": 60, "checkpoint.every_steps": 1}
        ),
        "LoRA": recipes.finetuning(rows, qwen, lora | {"train.steps": 300, "evaluate.every_steps": 100}),
        "LoRA, saved every 3": recipes.finetuning(
            rows, qwen, lora | {"train.steps": 150, "checkpoint.every_steps": 3, "evaluate.every_steps": 50}
        ),
        "labels": recipes.classification(
            bases.write_labelled(folder / "labels.jsonl", 400), None, labels | {"evaluate.every_steps": 50}
        ),
        "pairs": recipes.seq2seq(
            bases.write_pairs(folder / "pairs.jsonl", 300), None, pairs | {"evaluate.every_steps": 50}
        ),
    }


def _decoder(corpus: Path, changes: dict[str, Any]) -> Recipe:
    return recipe_from(recipes.tiny(corpus, {"evaluate.every_steps": 30, **changes}))


if __name__ == "__main__":
    main()

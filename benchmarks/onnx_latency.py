"""Time a classifier in onnxruntime and in torch, at batches of 1 and 32 texts.

    python benchmarks/onnx_latency.py RUN --runs runs --out results/onnx_latency.json

Validation samples in padded batches; torch is etude's model, which takes them without padding, and
transformers' with padding. All turn by turn on two threads, medians in milliseconds.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.export import export, load_model
from etude.quantize.onnx import FILE, export_onnx, pad_together
from etude.quantize.scoring import Examiner
from etude.records.store import open_run

TURNS, THREADS = 15, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.run, given.runs, Path(folder))
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2))


@torch.no_grad()
def measure(run: str, runs: Path, folder: Path) -> dict[str, Any]:
    """Medians by batch and by who computes it."""
    import onnxruntime  # type: ignore[import-not-found, unused-ignore]
    from transformers import AutoModelForSequenceClassification

    result = export_onnx(run, folder / "onnx", runs=runs)
    whole = export(run, "hf", folder / "hf", runs=runs)
    ours: Any = load_model(whole, dtype=torch.float32)
    theirs = AutoModelForSequenceClassification.from_pretrained(whole).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(folder / "onnx" / FILE, options, ["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    batches = Examiner(open_run(run, runs), torch.device("cpu")).validation_batches(32)
    found: dict[str, Any] = {"difference": result.difference, "bytes": result.bytes}
    for size in (1, 32):
        together = batches[:size]
        feeds = pad_together(together, names, theirs.config.pad_token_id)
        padded = {name: torch.from_numpy(rows) for name, rows in feeds.items()}
        row = torch.from_numpy(np.concatenate([each.tokens.flatten() for each in together])[None])
        lengths = tuple(each.tokens.size for each in together)
        ways: dict[str, Callable[[], Any]] = {
            "onnxruntime": partial(session.run, None, feeds),
            "etude": partial(classify, ours, row, lengths),
            "transformers": partial(theirs, **padded),
        }  # fmt: skip
        found[f"batch {size}"] = {"tokens": sum(lengths), **time_in_turn(ways)}
    return found


def classify(model: Any, row: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Logits of samples that lie end to end in a row."""
    logits: torch.Tensor = model.classify(model(row, lengths=lengths), lengths)
    return logits


def time_in_turn(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median of each in milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            taken[name].append(1000 * (time.perf_counter() - begin))
    return {name: round(statistics.median(each[2:]), 2) for name, each in taken.items()}


if __name__ == "__main__":
    main()

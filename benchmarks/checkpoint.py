"""Share of a 25M model's run in which training waits for checkpoints every 50 steps, and for data.

Measured twice: by the run's own journal, and from outside as all time between steps that is no step.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import WORK, median, write_result

EVERY_STEPS = 50
LIMIT_RATIO = 0.01
CLAIM = (
    "Share of a run for which a 25M model waits for checkpoints every 50 steps, and for data; the limit is "
    "1 % each"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    turns = [_measure(asked.steps) for _ in range(asked.turns)]
    ratios = ("checkpoint_ratio", "between_steps_ratio", "wait_ratio")
    result: dict[str, Any] = {name: round(median([turn[name] for turn in turns]), 5) for name in ratios}
    table = [
        ["share of the run's time", "median"],
        ["training waits for checkpoints (journal)", f"{result['checkpoint_ratio']:.2%}"],
        [
            "all between steps: checkpoints, journal, log (from outside)",
            f"{result['between_steps_ratio']:.2%}",
        ],
        ["training waits for data (journal)", f"{result['wait_ratio']:.2%}"],
    ]
    write_result("checkpoint", CLAIM, {"limit_ratio": LIMIT_RATIO, **result, "turns": turns}, table)


def _measure(steps: int) -> dict[str, Any]:
    from etude.recipe.load import recipe_from
    from etude.run import Training
    from etude.start import Options

    recipe = recipe_from({
        "name": "bench-checkpoint",
        "model": {"n_layer": 8, "n_head": 7, "n_embd": 448, "n_ffn": 1408},
        "tokenizer": {"train_vocab_size": 8192},
        "data": {"train": [{"source": "python-stdlib"}], "validation": "none"},
        "train": {"steps": steps, "seq_len": 128, "global_batch_size": 4},
        "checkpoint": {"every_steps": EVERY_STEPS},
    })  # fmt: skip
    with tempfile.TemporaryDirectory(dir=WORK) as runs:
        training = Training(recipe, Options(runs=Path(runs)))
        first, last, in_steps = None, 0.0, 0.0
        for step in training:
            last = time.perf_counter()
            if first is None:
                first = last
            else:
                in_steps += step.seconds
        assert first is not None
        lines = (training.run.path / "journal.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    saved = [record for record in records if record["type"] == "checkpoint"]
    taken = [record for record in records if record["type"] == "step"]
    total = last - first + taken[0]["seconds"]
    return {
        "parameters": next(record for record in records if record["type"] == "attempt")["parameters"][
            "total"
        ],
        "seconds": round(total, 2),
        "checkpoints": len(saved),
        "bytes": saved[0]["size"],
        "blocking_seconds": [record["blocking_seconds"] for record in saved],
        "write_seconds": [record["write_seconds"] for record in saved],
        "checkpoint_ratio": sum(record["blocking_seconds"] for record in saved) / total,
        "between_steps_ratio": (last - first - in_steps) / total,
        "wait_ratio": sum(record["wait_seconds"] for record in taken) / total,
    }


if __name__ == "__main__":
    main()

"""A sweep folder of any size, whose journals are written by the writer of runs; nothing is trained."""

import random
from pathlib import Path

from etude.records.events import CheckpointSaved, Control
from etude.records.store import create_run
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from tests.bases import write_corpus
from tests.report.runs import attempt, evaluation, window
from tests.sweeps import Axes, sweep_values, write_sweep

GRID: Axes = {"optim.learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "optim.weight_decay": [0.0, 0.01, 0.1]}
MODELS = {"code-small": 16, "code-base": 32}  # widths
_STEPS = 40
_LEFT, _FAILED = 0.03, 0.02  # shares of trials


def make_sweep(place: Path, grid: Axes = GRID, models: dict[str, int] = MODELS) -> SweepFolder:
    """A sweep of two tiers in `place/many`, most of its trials finished, some failed and some left."""
    place.mkdir(parents=True, exist_ok=True)
    values = sweep_values(write_corpus(place / "corpus.jsonl"), grid, {"train.steps": _STEPS})
    axes = values["tiers"][0]["grid"]
    values["tiers"] = [
        {
            "name": tier,
            "models": [
                {
                    "name": f"{tier}-{name}",
                    "settings": {"model": {"n_embd": width}, "train": {"seq_len": length}},
                }
                for name, width in models.items()
            ],
            "grid": axes,
        }
        for tier, length in (("small", 16), ("large", 32))
    ]
    sweep = load_sweep(write_sweep(place / "sweep.toml", {**values, "name": "many"}))
    folder, draw = SweepFolder(place / "many"), random.Random(17)
    with folder.hold():
        folder.write(sweep)
    for trial in sweep.trials:
        if draw.random() < _LEFT:
            continue
        rate = float(str(trial.recipe.optim.learning_rate))
        worth = 2.0 + abs(draw.gauss(0, 0.05)) + 0.4 * abs(rate / 1e-3 - 1) ** 0.5
        writer = create_run(folder.runs, trial.recipe)
        end = 7 if draw.random() < _FAILED else _STEPS
        writer.append(attempt(steps=_STEPS), *window(1, end, seconds=0.2 + draw.random()))
        if end == _STEPS:
            writer.append(evaluation(_STEPS // 2, worth + 0.2), evaluation(_STEPS, worth))
            writer.append(
                CheckpointSaved(_STEPS, f"step-{_STEPS:06}", 10**6, 0.1, 0.1),
                Control(_STEPS, "finish", "the last step is done"),
            )
        writer.close("finished" if end == _STEPS else "failed")
    return folder

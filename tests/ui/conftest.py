"""What several tests of the page look at and no test changes."""

import os
import subprocess
from pathlib import Path

import pytest

from etude.processes import python_command
from tests.bases import write_corpus
from tests.sweeps import Axes, sweep_values, write_sweep


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with sweep.toml and its sweep of four trials, sweeps/tiny, which has ended."""
    folder = tmp_path_factory.mktemp("swept")
    grid: Axes = {"optim.learning_rate": [1e-3, 1e-1], "train.steps": [4, 8]}
    changes = {"schedule.kind": "constant", "evaluate.every_steps": 2}
    values = sweep_values(write_corpus(folder / "corpus.jsonl"), grid, changes)
    path = write_sweep(folder / "sweep.toml", values)
    words = ["sweep", "run", str(path), "--folder", str(folder / "sweeps" / "tiny")]
    subprocess.run(
        python_command("etude", *words), env={**os.environ, "ETUDE_CACHE": str(cache)}, check=True,
        capture_output=True,
    )  # fmt: skip
    return folder

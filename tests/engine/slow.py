"""Two ranks of a run in forks of this process; rank 1 takes a second and a half longer in each step."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from etude.engine.loop import add_gradients
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options
from tests.ranks import Forks

folder = Path(sys.argv[1])
recipe = recipe_from(json.loads((folder / "recipe.json").read_text()))


def live(rank: int) -> None:
    def slow(*given: Any) -> int:
        time.sleep(1.5 * rank)
        return add_gradients(*given)

    torch.set_num_threads(1)
    run_recipe(recipe, Options(runs=folder / "runs", gradients=slow, has_report=False))


if __name__ == "__main__":
    (folder / "meeting").mkdir()
    said = Forks(2, live, folder / "out", folder=folder / "meeting").wait()
    assert not any(said.values()), said

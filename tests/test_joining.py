"""Ranks that do not fit together say so, and make no run."""

import socket
from collections.abc import Callable
from pathlib import Path

import torch

from etude.recipe.schema import Recipe
from etude.run import run_recipe
from etude.start import Options
from tests.ranks import Forks

Make = Callable[..., Recipe]


def test_ranks_with_other_data_than_rank_0_say_so_and_end(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"train.steps": 4, "train.devices": 2})
    other = make_recipe({"train.steps": 4, "train.devices": 2, "data.validation_ratio": 0.3})

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        run_recipe(other if rank else recipe, Options(runs=tmp_path / "runs"))

    said = Forks(2, live, tmp_path / "out").wait()
    host = socket.gethostname()
    wanted = f"the data prepared on {host} differ from those of rank 0; give all machines the same"
    assert said[1].startswith(f"InputError: {wanted}"), said
    assert said[0].startswith(f"LostRankError: rank 1 on {host} ended: {wanted}"), said
    assert not list((tmp_path / "runs").glob("tiny*"))

"""Ranks that do not fit together say so, and make no run."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from etude import joining
from etude.joining import find_mixed
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import list_runs
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


def test_devices_of_several_types_are_named_with_their_ranks() -> None:
    (found,) = find_mixed(["NVIDIA H100"] * 3 + ["NVIDIA A100"])
    assert found.evidence == "NVIDIA H100: 3 ranks, as 0, 1, 2; NVIDIA A100: rank 3"
    assert not list(find_mixed(["NVIDIA H100"] * 3)) and not list(find_mixed([]))


def test_ranks_tell_each_other_their_devices_when_they_meet(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"train.steps": 1, "train.devices": 2, "evaluate.every_steps": 1})

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        monkeypatch.setattr(joining, "device_name", lambda device: f"type {rank}")
        run_recipe(recipe, Options(runs=tmp_path / "runs", has_report=False))

    (tmp_path / "meeting").mkdir()
    assert Forks(2, live, tmp_path / "out", folder=tmp_path / "meeting").wait() == {0: "", 1: ""}
    (run,) = list_runs(tmp_path / "runs")
    findings = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert "type 0: rank 0; type 1: rank 1" in [each.evidence for each in findings]


def test_ranks_with_another_recipe_say_which_key_and_make_no_run(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"train.steps": 4, "train.devices": 2})
    other = make_recipe({"train.steps": 4, "train.devices": 2, "optim.learning_rate": 0.5})

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        run_recipe(other if rank else recipe, Options(runs=tmp_path / "runs"))

    (tmp_path / "meeting").mkdir()
    said = Forks(2, live, tmp_path / "out", folder=tmp_path / "meeting").wait()
    wanted = f"InputError: optim.learning_rate is 0.5 on {socket.gethostname()} and 0.003 on rank 0; give all"
    assert said[1].startswith(wanted), said
    assert not list((tmp_path / "runs").glob("tiny*"))

"""Means of weights, against numpy on the files of the members and against the evaluations of runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from etude.average import average
from etude.errors import FaultError
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus, write_instructions, write_qwen2
from tests.conftest import Outcome
from tests.recipes import finetuning, tiny

# At a constant rate this high the weights go to and fro, so that their mean is better than each of them.
COURSE = {
    "name": "course", "checkpoint": {"keep": "all", "every_steps": 10}, "train.steps": 60,
    "optim.learning_rate": 3e-2, "schedule": {"kind": "constant", "warmup_steps": 5},
}  # fmt: skip
MakeOnce = Callable[[str, Callable[[Path], Any]], Any]


def build(folder: Path) -> list[str]:
    """A run from scratch with four checkpoints, two seeds of a full tuning and two of a LoRA."""
    runs, rows = Options(runs=folder / "runs"), folder / "rows.jsonl"
    write_instructions(rows, 40)
    base, corpus = write_qwen2(folder / "base"), write_corpus(folder / "corpus.jsonl")
    made = [run_recipe(recipe_from(tiny(corpus, COURSE)), runs)]
    for name, adapter in (("full", {}), ("lora", {"adapter": {"rank": 4}})):
        for seed in (1, 2):
            changes = {"name": f"{name}-{seed}", "seed": seed, "train.steps": 6, **adapter}
            made.append(run_recipe(finetuning(rows, base, changes), runs))
    return [str(each.run.path) for each in made]


@pytest.fixture
def members(make_once: MakeOnce) -> list[Run]:
    return [Run(Path(path)) for path in make_once("average", build)]


def test_the_mean_of_the_last_checkpoints_is_that_of_numpy_and_measured_as_the_run_measures(
    members: list[Run], tmp_path: Path
) -> None:
    course, runs = members[0], members[0].path.parent
    found = average([course.name], tmp_path / "out", last=3, runs=runs)
    folders = sorted((course.path / "checkpoints").iterdir())[-3:]
    files = [load_file(folder / "model.safetensors") for folder in folders]
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == files[0].keys()
    for name, tensor in written.items():
        assert tensor == pytest.approx(np.mean([file[name] for file in files], axis=0), abs=1e-6)
    losses = {each.step: each.loss for each in read_history(course).evaluations}
    for name, value in found.members.items():
        step = int(name.rpartition("-")[2])
        if step in losses:
            assert value == pytest.approx(losses[step], rel=1e-5)
    assert found.used == tuple(found.members) and found.best == min(
        found.members, key=found.members.__getitem__
    )
    beside = found.figures["loss"]
    assert beside.difference is not None
    assert beside.difference[0] == pytest.approx(beside.made[0] - beside.original[0], abs=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The mean of 3 checkpoints." in card and found.verdict.split(":")[0] in card.replace("\\", "")


def test_adapters_are_merged_before_and_the_outcome_loads_elsewhere(
    members: list[Run], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    runs = members[0].path.parent
    names = [run.name for run in members if run.name.startswith("lora")]
    average([f"{name}@last" for name in names], tmp_path / "out", runs=runs)
    from etude.export import export

    merged = [
        load_file(export(f"{name}@last", "merged", tmp_path / name, runs=runs) / "model.safetensors")
        for name in names
    ]
    mean = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert mean[name].dtype == torch.float32
    assert mean[name].numpy() == pytest.approx(np.mean([each[name] for each in merged], axis=0), abs=1e-6)


def test_a_greedy_soup_is_no_worse_than_its_best_member(members: list[Run], tmp_path: Path) -> None:
    runs = members[0].path.parent
    names = [run.name for run in members if run.name.startswith("full")]
    found = average(names, tmp_path / "out", greedy=True, runs=runs)
    beside = found.figures[found.figure]
    assert found.best in found.used and beside.made[0] <= beside.original[0] + 1e-6
    assert "too good" in (tmp_path / "out" / "README.md").read_text()
    assert found.figure == "loss" and found.samples


def test_a_mean_that_is_worse_is_not_written(members: list[Run], tmp_path: Path) -> None:
    rows, runs = tmp_path / "corpus.jsonl", Options(runs=tmp_path / "runs")
    write_corpus(rows)
    changes = {"train.steps": 60, "optim.learning_rate": 1e-2, "evaluate.every_steps": 30}
    for seed in (1, 2):
        run_recipe(recipe_from(tiny(rows, {**changes, "seed": seed, "name": f"seed-{seed}"})), runs)
    with pytest.raises(FaultError, match=r"worse than .* beyond the noise .* nothing is written"):
        average(["seed-1", "seed-2"], tmp_path / "out", runs=runs.runs)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_averaged_is_refused_in_one_line(
    members: list[Run], tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    runs, out = members[0].path.parent, str(tmp_path / "out")
    course, full, _, lora, _ = (run.name for run in members)
    for given, message in (
        ([course], "two runs or more"),
        ([course, "--last", "99"], "--last asks for 99; give fewer"),
        ([course, "--last", "1"], "takes 2 checkpoints or more"),
        ([course, full, "--last", "2"], "of one run"),
        ([full, full], "is given twice"),
        ([course, full], "differ in"),
        ([full, lora, "--greedy"], "differ in adapter"),
        ([full, "none"], "none"),
    ):
        outcome = etude("average", *given, "--out", out, "--runs", str(runs))
        assert outcome.code == 2 and message in outcome.err, outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    assert not Path(out).exists()


def test_the_command_prints_members_and_verdict(
    members: list[Run], tmp_path: Path, etude: Callable[..., Outcome]
) -> None:
    given = ["average", members[0].name, "--last", "2", "--out", str(tmp_path / "out")]
    outcome = etude(*given, "--runs", str(members[0].path.parent), "--json")
    told = json.loads(outcome.out)
    assert outcome.code == 0 and set(told["members"]) == set(told["used"]) and told["folder"]
    assert told["figures"]["loss"].keys() == {"best_member", "average", "difference"}

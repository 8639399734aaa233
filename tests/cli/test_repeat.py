"""`etude train --repeat` with real runs of a few steps."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import tomlkit

from etude.launch.seeds import find_seeds
from etude.recipe.load import load_recipe
from etude.records.events import Attempt, Scores
from etude.records.store import Run, list_runs
from etude.run import Training
from etude.start import Options
from tests.bases import write_labelled
from tests.conftest import Outcome
from tests.recipes import classification

Etude = Callable[..., Outcome]


def write_recipe(folder: Path) -> Path:
    test = write_labelled(folder / "test.jsonl", 40)
    changes = {
        "data.test": [{"path": str(test), "label": "label", "capability": "kind"}],
        "data.leakage.action": "report", "train.steps": 8, "evaluate.every_steps": 4,
        "checkpoint.every_steps": 4,
    }  # fmt: skip
    recipe = classification(write_labelled(folder / "rows.jsonl", 60), None, changes)
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe.to_dict()))
    return folder / "recipe.toml"


def final(run: Run) -> Scores:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)][-1]


def attempts(run: Run) -> int:
    return sum(isinstance(entry.event, Attempt) for entry in run.ledger().all)


def trained_anew(recipe: Path, options: Options) -> list[int]:
    """The seeds that the command would start a run for."""
    seeds = [seed for seed in find_seeds(load_recipe(recipe), options, 2) if seed.finished is None]
    assert all(seed.options.new for seed in seeds)
    return [seed.recipe.seed for seed in seeds]


def test_repeats_are_continued_and_finished_ones_are_not_trained_again(tmp_path: Path, etude: Etude) -> None:
    recipe, runs = write_recipe(tmp_path), tmp_path / "runs"
    second = Training(load_recipe(recipe, ["seed=18"]), Options(runs=runs))
    for step, _ in enumerate(second, start=1):
        if step == 5:
            break
    (begun,) = list_runs(runs)
    command = ("train", recipe, "--repeat", 2, "--runs", runs)
    outcome = etude(*command)
    assert outcome.code == 0, outcome.err
    found = {run.recipe.seed: run for run in list_runs(runs)}
    assert found.keys() == {17, 18} and found[18].path == begun.path
    assert [attempts(found[seed]) for seed in (17, 18)] == [1, 2]
    values = [final(found[seed]).systems["after"]["f1"][0] for seed in (17, 18)]
    assert (
        f"{statistics.mean(values):.4f}" in outcome.out and f"{statistics.stdev(values):.4f}" in outcome.out
    )
    assert f"etude compare {found[17].name} {found[18].name} --runs {runs}" in outcome.err

    again = etude(*command)
    assert again.out == outcome.out and again.err.count("is finished already") == 2
    assert {run.path: attempts(run) for run in list_runs(runs)} == {found[17].path: 1, found[18].path: 2}

    assert trained_anew(recipe, Options(runs=runs)) == []
    assert trained_anew(recipe, Options(runs=runs, new=True)) == [17, 18]
    with (tmp_path / "rows.jsonl").open("a") as file:  # other data: what is finished is not of this command
        file.write(json.dumps({"text": "total print left", "label": "sum", "kind": "a"}) + "\n")
    assert trained_anew(recipe, Options(runs=runs)) == [17, 18]

    scores = json.loads(etude("ensemble", *(run.path for run in found.values()), "--json").out)
    for run in found.values():  # what an ensemble says of a member is what the run said of itself
        assert scores["systems"][run.name] == final(run).systems["after"]
    compared = etude("compare", *(run.path for run in found.values())).out
    assert "The runs differ in their seed only" in compared

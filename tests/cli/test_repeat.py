"""`etude train --repeat` with real runs of a few steps."""

import json
import signal
import statistics
from collections.abc import Callable
from pathlib import Path

import tomlkit

from etude.cli.repeat import train_seeds
from etude.recipe.load import load_recipe
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Event, Scores
from etude.records.store import Run, list_runs
from etude.run import Training
from etude.start import Options
from tests.bases import write_labelled
from tests.conftest import Outcome
from tests.test_classification import classification

Etude = Callable[..., Outcome]


class Interrupt:
    """Ctrl-C in the moment the final scores are written, after the last step."""

    def show_plan(self, run: Run, rows: object) -> None: ...

    def write(self, event: Event) -> None:
        if isinstance(event, Scores):
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None: ...


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
    started: list[Recipe] = []

    def train(one: Recipe, options: Options) -> Run:
        assert options.new
        started.append(one)
        return list_runs(options.runs)[0]

    train_seeds(load_recipe(recipe), options, 2, train, lambda text: None)
    return [one.seed for one in started]


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
    assert "noise of the seeds" in compared and f"{found[18].name} + 1 seed" in compared


def test_ctrl_c_after_the_last_step_of_a_repeat_is_not_lost(tmp_path: Path) -> None:
    training = Training(
        load_recipe(write_recipe(tmp_path)), Options(runs=tmp_path / "runs", view=Interrupt())
    )
    for _ in training:
        pass
    assert training.ending.was_asked and not training.ending.is_resumable and training.run.state == "finished"

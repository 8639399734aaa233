"""A trial that goes on from another one is, bit for bit, the trial that was trained by itself."""

from pathlib import Path
from typing import Any

import pytest

from etude.engine.fork import fork
from etude.errors import InputError
from etude.recipe.load import recipe_from, recipe_hash, to_toml, with_changes
from etude.records.events import Attempt, Evaluation, Forecast, Scores, Step, to_json
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from etude.sweep.stage import Branch, find_trial, hold_stage, run_stage
from tests.bases import write_labelled
from tests.recipes import tiny

FLAT = {
    "model.dropout": 0.1, "schedule.kind": "constant", "schedule.warmup_steps": 2, "checkpoint.keep": 2,
    "evaluate.every_steps": 4, "checkpoint.every_steps": 5,
}  # fmt: skip
LONG = 15
CASES: dict[str, tuple[dict[str, Any], int, int]] = {  # changes, steps of the shorter trial, and its fork
    "constant": ({}, 9, 9),
    "constant, at an evaluation": ({}, 8, 8),
    "wsd": ({"schedule.kind": "wsd"}, 10, 8),
    "stopped early before the fork": ({"optim.learning_rate": 1e-9, "evaluate.patience": 1}, 13, 13),
}


def write_files(folder: Path, changes: dict[str, Any], lengths: dict[str, int]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {}
    for name, steps in lengths.items():
        recipe = recipe_from(
            tiny(folder.parent / "corpus.jsonl", {**FLAT, **changes, "train.steps": steps, "name": name})
        )
        paths[name] = folder / f"{name}.toml"
        paths[name].write_text(to_toml(recipe))
    return paths


def train_alone(path: Path, runs: Path) -> Run:
    assert run_stage(path, runs, []).code == 0
    return found(path, runs)


def found(path: Path, runs: Path) -> Run:
    run = find_trial(runs, path)
    assert run is not None
    return run


def outcome(run: Run) -> tuple[Any, ...]:
    """All that training made, without what clocks say: records, weights, optimizer, best, predictions."""
    made = [
        to_json(entry.event, 0.0)
        for entry in run.ledger().entries
        if isinstance(entry.event, Step | Evaluation | Scores)
    ]
    records = [{key: value for key, value in each.items() if "seconds" not in key} for each in made]
    last = max(run.checkpoints.iterdir())
    tensors = {path.name: path.read_bytes() for path in last.glob("*.safetensors")}
    kept = {path.name: path.read_bytes() for path in (run.path / "predictions").rglob("*.jsonl")}
    return records, last.name, tensors, run.best, kept, run.state, without_name(run)


def without_name(run: Run) -> str:
    return recipe_hash(with_changes(run.recipe, {"name": "any"}))


@pytest.mark.parametrize("case", CASES)
def test_a_derived_trial_equals_the_trial_trained_alone(tmp_path: Path, corpus: Path, case: str) -> None:
    changes, steps, step = CASES[case]
    paths = write_files(tmp_path / "trials", changes, {"long": LONG, "short": steps})
    assert run_stage(paths["long"], tmp_path / "runs", [Branch(step, paths["short"])]).code == 0
    derived = found(paths["short"], tmp_path / "runs")
    assert derived.info["origin"]["step"] <= step and derived.state == "stopped"
    assert run_stage(paths["short"], tmp_path / "runs", []).code == 0
    for path in paths.values():
        assert outcome(found(path, tmp_path / "runs")) == outcome(train_alone(path, tmp_path / "alone"))
    attempts = [entry.event for entry in derived.ledger().entries if isinstance(entry.event, Attempt)]
    assert attempts[-1].from_step == min(step, attempts[-1].from_step)


def test_a_derived_classifier_has_the_scores_of_one_trained_alone(tmp_path: Path, corpus: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl")
    changes = {
        "model": {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 2, "dropout": 0.1},
        "train.objective": "classification", "evaluate.metric": "f1", "tokenizer": {"train_vocab_size": 300},
        "data.train": [{"path": str(rows), "label": "label"}], "data.test": [{"path": str(rows), "label": "label"}],
        "data.leakage": {"action": "report"}, "schedule.kind": "wsd",
    }  # fmt: skip
    paths = write_files(tmp_path / "trials", changes, {"long": LONG, "short": 10})
    run_stage(paths["long"], tmp_path / "runs", [Branch(8, paths["short"])])
    run_stage(paths["short"], tmp_path / "runs", [])
    for path in paths.values():
        assert outcome(found(path, tmp_path / "runs")) == outcome(train_alone(path, tmp_path / "alone"))


def test_a_stage_that_is_run_again_makes_nothing_again(tmp_path: Path, corpus: Path) -> None:
    paths = write_files(tmp_path / "trials", {}, {"long": LONG, "short": 9})
    branches = [Branch(9, paths["short"])]
    for _ in range(2):
        run_stage(paths["long"], tmp_path / "runs", branches)
        run_stage(paths["short"], tmp_path / "runs", [])
    runs = list((tmp_path / "runs").glob("[a-z]*"))
    assert len(runs) == 2
    for run in map(Run, runs):
        numbers = [entry.event.number for entry in run.ledger().entries if isinstance(entry.event, Attempt)]
        # The start, and of a fork what followed it, once each.
        assert numbers == ([1, 2] if run.info.get("origin") else [1])


def test_a_branch_that_can_no_longer_be_made_is_left_to_be_trained_alone(
    tmp_path: Path, corpus: Path
) -> None:
    paths = write_files(tmp_path / "trials", {}, {"long": LONG, "short": 3})
    train_alone(paths["long"], tmp_path / "runs")
    assert run_stage(paths["long"], tmp_path / "runs", [Branch(3, paths["short"])]).code == 0
    assert find_trial(tmp_path / "runs", paths["short"]) is None


@pytest.mark.parametrize(("samples", "is_taken"), [(8, True), (4, False)])
def test_memory_that_was_traced_before_is_the_forecast_of_micro_batches_of_its_size(
    tmp_path: Path, corpus: Path, samples: int, is_taken: bool
) -> None:
    paths = write_files(tmp_path / "trials", {"train.micro_batch_size": 8}, {"trial": 3})
    run_stage(paths["trial"], tmp_path / "runs", [], traced=(samples, 10**15))
    events = [each.event for each in found(paths["trial"], tmp_path / "runs").ledger().entries]
    first = next(each for each in events if isinstance(each, Forecast))
    assert first.step == 0 and (first.memory_bytes > 10**15) == is_taken


def test_a_stage_is_held_by_one_process(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    first = hold_stage(path)
    assert first is not None and hold_stage(path) is None


@pytest.mark.parametrize(
    ("changes", "step", "text"),
    [
        ({"optim.learning_rate": 1e-3}, 5, "optim.learning_rate"),
        ({"schedule.kind": "linear"}, 5, "have 3 steps in common"),
        ({"schedule.warmup_steps": 4}, 5, "have 0 steps in common"),
        ({"train.steps": 4}, 5, "have 4 steps in common"),
    ],
)
def test_a_fork_with_another_recipe_takes_only_another_end(
    tmp_path: Path, corpus: Path, changes: dict[str, Any], step: int, text: str
) -> None:
    recipe = recipe_from(tiny(corpus, {**FLAT, "train.steps": 6, "checkpoint.keep": "all"}))
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    with pytest.raises(InputError, match=text):
        fork(run, step, tmp_path / "forks", with_changes(recipe, changes))
    assert not list((tmp_path / "forks").glob("*"))

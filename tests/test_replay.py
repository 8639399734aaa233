"""A run that was steered is made again, bit for bit, from its recipe and the changes in its journal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from etude.control.mailbox import post
from etude.errors import InputError
from etude.recipe.load import recipe_from, to_toml, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Control, Evaluation, Step
from etude.records.store import Run, list_runs
from etude.replay import replay
from etude.run import Training, run_recipe
from etude.start import Options
from tests import recipes
from tests.bases import write_corpus, write_encoder, write_instructions, write_labelled, write_qwen2
from tests.limited import failing, fragile_loss
from tests.processes import in_a_fork
from tests.programs import run_program
from tests.recipes import tiny

Make = Callable[..., Recipe]
Asked = dict[int, tuple[str, Any]]
STEERED: Asked = {
    2: ("evaluate.every_steps", 4), 3: ("optim.learning_rate", 1e-3), 5: ("records.log_every_steps", 2),
    6: ("train.steps", 17), 8: ("checkpoint.every_steps", 3), 9: ("train.max_grad_norm", 0.1),
    11: ("evaluate.patience", 9), 13: ("data.skip_steps", 1),
}  # fmt: skip


def pretraining(folder: Path) -> Recipe:
    return recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), {"model.dropout": 0.1}))


def lora(folder: Path) -> Recipe:
    rows, base = write_instructions(folder / "rows.jsonl"), write_qwen2(folder / "base")
    return recipes.finetuning(rows, base, {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}})


def labels(folder: Path) -> Recipe:
    return recipes.classification(write_labelled(folder / "rows.jsonl"), write_encoder(folder / "base"))


def steer(recipe: Recipe, options: Options, asked: Asked, until: int | None = None) -> Training:
    training = Training(recipe, options)
    for step in training:
        if step.number in asked:
            key, value = asked[step.number]
            post(training.run, "set", key=key, value=value)
        if step.number == until:
            break
    return training


def tensors(run: Run) -> dict[str, bytes]:
    last = max(run.checkpoints.iterdir())
    return {f"{last.name}/{path.name}": path.read_bytes() for path in last.glob("*.safetensors")}


def series(run: Run) -> list[Any]:
    events = [entry.event for entry in run.ledger().entries]
    steps = [(each.step, repr(each.loss), each.learning_rate) for each in events if isinstance(each, Step)]
    return [*steps, *((each.step, repr(each.loss)) for each in events if isinstance(each, Evaluation))]


def again(recipe: Recipe, run: Run, runs: Path) -> Training:
    return run_recipe(*replay(recipe, run, Options(runs=runs)))


@pytest.mark.parametrize("build", [pretraining, lora, labels])
def test_a_steered_run_that_was_killed_and_resumed_is_made_again_bit_for_bit(
    tmp_path: Path, build: Callable[[Path], Recipe]
) -> None:
    recipe = with_changes(build(tmp_path), {"schedule.kind": "constant", "train.steps": 12})
    steer(recipe, Options(runs=tmp_path / "runs"), STEERED, until=7)
    run = steer(recipe, Options(runs=tmp_path / "runs"), STEERED).run
    assert [step for step, *_ in series(run)][16] == 17
    made = again(recipe, run, tmp_path / "runs")
    assert made.ending.state == "finished" and made.run.path != run.path
    assert (tensors(made.run), series(made.run)) == (tensors(run), series(run))
    assert made.run.recipe == run.recipe


def test_a_patience_that_was_lowered_stops_the_replay_where_it_stopped_the_run(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe(
        {"evaluate.every_steps": 1, "optim.learning_rate": 1e-9, "evaluate.min_improvement": 1.0}
    )
    run = steer(recipe, Options(runs=tmp_path), {5: ("evaluate.patience", 3)}).run
    assert [step for step, *_ in series(run)][-1] == 5
    made = again(recipe, run, tmp_path).run
    assert (tensors(made), series(made)) == (tensors(run), series(run))


def test_the_replay_of_a_stopped_run_goes_as_far_as_that_went(tmp_path: Path, make_recipe: Make) -> None:
    run = steer(make_recipe(), Options(runs=tmp_path), {3: ("optim.learning_rate", 1e-3)}, until=7).run
    made = again(make_recipe(), run, tmp_path)
    assert made.ending.is_resumable and tensors(made.run) == tensors(run)
    assert {name.split("/")[0] for name in tensors(run)} == {"step-000007"}
    asked = [
        each for each in (entry.event for entry in made.run.ledger().entries) if isinstance(each, Control)
    ]
    assert [(each.changes, each.from_step, each.channel) for each in asked if each.changes] == [
        ({"optim.learning_rate": 1e-3}, 3, "replay")
    ]
    resumed = run_recipe(*replay(make_recipe(), run, Options(runs=tmp_path)))  # which is at its end already
    assert resumed.run.path == made.run.path


def test_another_recipe_and_other_first_weights_are_refused(tmp_path: Path, make_recipe: Make) -> None:
    run = steer(make_recipe(), Options(runs=tmp_path), {}, until=4).run
    with pytest.raises(InputError, match=r"not that of run .* \(seed = 3\); give the recipe as it was"):
        replay(make_recipe({"seed": 3}), run, Options(runs=tmp_path))
    with pytest.raises(InputError, match="began with other first weights; leave --from out"):
        replay(make_recipe(), run, Options(runs=tmp_path, weights=f"{run.path}@last"))


def test_a_run_that_was_killed_and_went_back_is_made_again(tmp_path: Path, make_recipe: Make) -> None:
    """Killed by kill -9 after a change, after a way back, and after steps that no checkpoint has."""
    recipe = make_recipe({"schedule.kind": "constant", "train.steps": 18, "checkpoint.keep": "all"})

    def live(asked: Mapping[int, dict[str, Any]], kill_at: int | None) -> None:
        training, left = Training(recipe, Options(runs=tmp_path / "runs")), dict(asked)
        for step in training:
            if step.number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if step.number in left:
                post(training.run, **left.pop(step.number))

    rate = {"action": "set", "key": "optim.learning_rate"}
    back = {"action": "back", "key": "train.max_grad_norm", "value": 0.1, "step": 4}
    lives: list[tuple[dict[int, dict[str, Any]], int | None]] = [
        ({3: {**rate, "value": 1e-3}}, 4), ({5: {**rate, "value": 2e-3}, 9: back}, 11),
        ({10: {**rate, "value": 5e-4}}, 15), ({}, None),
    ]  # fmt: skip
    for asked, kill_at in lives:
        ended = in_a_fork(lambda asked=asked, kill_at=kill_at: live(asked, kill_at))  # type: ignore[misc]
        assert ended == (0 if kill_at is None else -signal.SIGKILL)
    (run,) = list_runs(tmp_path / "runs")
    made = again(recipe, run, tmp_path / "runs").run
    assert (tensors(made), series(made)) == (tensors(run), series(run))


def test_a_run_that_recovered_from_a_broken_step_is_made_again(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({
        "watch.policy": "recover", "optim.learning_rate": 2e-2, "schedule.kind": "constant", "train.steps": 30,
        "records.log_every_steps": 1, "evaluate.every_steps": 30, "checkpoint.keep": "all",
    })  # fmt: skip
    run = run_recipe(recipe, Options(runs=tmp_path, loss=fragile_loss)).run
    assert [each.event.action for each in run.ledger().entries if isinstance(each.event, Control)] == [
        "back", "finish",
    ]  # fmt: skip
    made = run_recipe(*replay(recipe, run, Options(runs=tmp_path, loss=fragile_loss))).run
    assert (tensors(made), series(made)) == (tensors(run), series(run))


@pytest.mark.parametrize("policy", ["keep_batch", "smaller_batch"])
def test_a_run_that_was_short_of_memory_is_made_again(tmp_path: Path, make_recipe: Make, policy: str) -> None:
    recipe = make_recipe({"model.dropout": 0.1, "train.micro_batch_size": 4, "train.on_oom": policy})
    run = run_recipe(recipe, Options(runs=tmp_path, loss=failing(12))).run
    made = run_recipe(*replay(recipe, run, Options(runs=tmp_path, loss=failing(-1)))).run
    assert (tensors(made), series(made)) == (tensors(run), series(run))


def test_two_ranks_make_a_steered_run_again(tmp_path: Path, cache: Path) -> None:
    changes = {
        "schedule.kind": "constant", "train.steps": 20, "records.log_every_steps": 2, "train.devices": 2,
    }  # fmt: skip
    recipe = with_changes(pretraining(tmp_path), changes)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    asked = {4: ("optim.learning_rate", 1e-3), 6: ("evaluate.every_steps", 7), 9: ("train.steps", 24)}
    requests = {step: [{"action": "set", "key": key, "value": value}] for step, (key, value) in asked.items()}
    runs = tmp_path / "runs"
    done = run_program("steered", [tmp_path / "recipe.json", runs, json.dumps(requests)], cache, ranks=2)
    assert done.code == 0, done.err[-2000:]
    (run,) = list_runs(runs)
    (run.path / "lease.json").write_text(
        json.dumps({**run.lease, "left": True})
    )  # as a command does at its end
    made = [
        each.event for each in run.ledger().entries if isinstance(each.event, Control) and each.event.changes
    ]
    assert len(made) == 3 and series(run)[23][0] == 24
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    words = ["train", str(tmp_path / "recipe.toml"), "--runs", str(runs), "--replay", run.name]
    told = subprocess.run(
        [sys.executable, "-m", "etude", *words], check=False, capture_output=True, text=True, timeout=240
    )
    assert told.returncode == 0, told.stderr
    assert told.stderr.count(f"makes {run.name} again, with the 3 changes made to it") == 1
    (_, second) = list_runs(runs)
    assert (tensors(second), series(second)) == (tensors(run), series(run))

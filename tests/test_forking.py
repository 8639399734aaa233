"""A fork goes on from a checkpoint of another run, with changes from that step on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.errors import InputError, RecipeError
from etude.forking import fork
from etude.recipe.course import Change
from etude.recipe.load import flatten, recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Control, Step
from etude.records.store import Run
from etude.report.summary import summarize
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus
from tests.recipes import tiny

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("forking")
    changes = {"checkpoint.keep": "all", "schedule.kind": "constant", "model.dropout": 0.1}
    recipe = recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), changes))
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def tensors(run: Run) -> dict[str, bytes]:
    last = max(run.checkpoints.iterdir())
    return {f"{last.name}/{path.name}": path.read_bytes() for path in last.glob("*.safetensors")}


def go_on(run: Run) -> Run:
    return run_recipe(run.recipe, Options(runs=run.path.parent, resume=run)).run


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def test_a_fork_without_changes_ends_as_its_parent(parent: Run) -> None:
    for given in (f"{parent.path}@4", f"{parent.path}@step-8"):
        assert tensors(go_on(fork(given))) == tensors(parent)


def test_a_changed_fork_is_the_run_that_was_changed_at_that_step(parent: Run, tmp_path: Path) -> None:
    changes = {"optim.learning_rate": 1e-4, "train.steps": 15, "evaluate.every_steps": 4}
    made = fork(f"{parent.path}@4", changes)
    (control, *_) = [each for each in events(made, Control) if each.changes]
    assert (control.before, control.channel) == ({"optim.learning_rate": 3e-3}, "fork") and control.who
    asked = tuple(Change(4, key, value) for key, value in changes.items())
    whole = run_recipe(parent.recipe, Options(runs=tmp_path, changes=asked)).run
    run = go_on(made)
    assert tensors(run) == tensors(whole) and len(events(run, Step)) == 15
    assert len([each for each in events(run, Control) if each.changes]) == 3
    assert run.info["origin"] == {"run": parent.info["id"], "step": 4, "changes": {}}


def test_a_fork_that_has_yet_to_begin_says_so_and_has_the_time_of_its_parent_until_there(parent: Run) -> None:
    made = summarize(fork(f"{parent.path}@8", {"optim.learning_rate": 1e-4}))
    assert (made["status"], made["reason"]) == ("stopped", "a fork that has yet to begin")
    assert made["wall_seconds"] <= summarize(parent)["wall_seconds"]


def test_a_finished_run_goes_on_in_a_fork_with_more_steps(parent: Run, tmp_path: Path) -> None:
    longer = run_recipe(parent.recipe, Options(runs=tmp_path, changes=(Change(12, "train.steps", 16),))).run
    assert tensors(go_on(fork(f"{parent.path}@last", {"train.steps": 16}))) == tensors(longer)


def test_keys_of_the_optimizer_are_others_in_the_recipe_of_a_fork(parent: Run) -> None:
    made = fork(str(parent.path), {"optim.weight_decay": 0.3})
    assert flatten(made.recipe.to_dict())["optim.weight_decay"] == 0.3
    assert made.info["origin"]["changes"] == {"optim.weight_decay": 0.3}
    assert fork(str(made.path)).info["origin"]["changes"] == {"optim.weight_decay": 0.3}
    assert tensors(go_on(fork(f"{parent.path}@4", {"optim.weight_decay": 0.3}))) != tensors(parent)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("data.validation_ratio", 0.2, "its place in the data is one of these rows; etude train RECIPE"),
        ("tokenizer.train_vocab_size", 400, "its weights are of these tokens"),
        ("model.n_layer", 3, "its weights and moments have these shapes"),
        ("seed", 3, "seed cannot change in a fork: the order of the data follows from it"),
        (
            "train.seq_len",
            16,
            "its steps until there were made with it; etude train RECIPE train.seq_len=VALUE --from",
        ),
        ("optim.learning_rate", -1.0, "optim.learning_rate .* must be above 0"),
        ("optim.weight_decay", "much", "optim.weight_decay .* must be a number"),
        ("optim.speed", 3, "optim.speed"),
        ("train.steps", 3, "train.steps .* above the 12 steps done"),
    ],
)
def test_what_cannot_change_is_refused_by_name_and_nothing_is_made(
    parent: Run, key: str, value: object, line: str
) -> None:
    before = list(parent.path.parent.iterdir())
    with pytest.raises((InputError, RecipeError), match=line):
        fork(f"{parent.path}@{12 if key == 'train.steps' else 8}", {key: value})
    assert list(parent.path.parent.iterdir()) == before


def test_a_run_without_a_checkpoint_is_not_forked(parent: Run) -> None:
    with pytest.raises(InputError, match="no checkpoint of step 5; it has"):
        fork(f"{parent.path}@5")

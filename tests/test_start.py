"""What is found before the first step: one run for one recipe, whose recipe is the one it was
started with."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from etude import start
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run, alone, create_run, find_unfinished, hold_run, list_runs
from etude.run import Training, run_recipe
from etude.start import Options
from tests.conftest import Outcome

Make = Callable[..., Recipe]
Etude = Callable[..., Outcome]


def stopped(recipe: Recipe, runs: Path, at: int = 4) -> Run:
    """A run that was stopped after so many steps."""
    training = Training(recipe, Options(runs=runs))
    for step in training:
        if step.number == at:
            break
    return training.run


def test_of_many_processes_that_start_a_recipe_one_makes_the_run(tmp_path: Path, make_recipe: Make) -> None:
    recipe, context = make_recipe(), multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(12), context.Queue()

    def start() -> None:
        barrier.wait()
        try:
            with alone(tmp_path):
                found = find_unfinished(tmp_path, recipe)
                writer = hold_run(found) if found else create_run(tmp_path, recipe)
            answers.put(writer.run.name)
        except InputError as error:
            answers.put(str(error))
        barrier.wait()

    children = [context.Process(target=start) for _ in range(12)]
    for child in children:
        child.start()
    said = [answers.get(timeout=30) for _ in children]
    for child in children:
        child.join()
    (run,) = list_runs(tmp_path)
    assert said.count(run.name) == 1 and sum("is in use by process" in each for each in said) == 11


def test_two_that_train_the_same_recipe_at_once_make_one_run(
    tmp_path: Path, write_recipe: Callable[..., Path], cache: Path
) -> None:
    from etude.recipe.load import load_recipe

    recipe, context = load_recipe(write_recipe({"train.steps": 2})), multiprocessing.get_context("fork")
    run_recipe(recipe, Options(runs=tmp_path / "first"))  # the data is prepared
    codes = context.Queue()

    def train() -> None:
        try:
            for _ in Training(recipe, Options(runs=tmp_path / "runs")):
                codes.put("trained")
                held.wait(20)
                break
        except InputError as error:
            codes.put(str(error))

    held = context.Event()
    children = [context.Process(target=train) for _ in range(2)]
    for child in children:
        child.start()
    said = sorted(codes.get(timeout=60) for _ in children)
    held.set()
    for child in children:
        child.join()
    assert len(list_runs(tmp_path / "runs")) == 1
    assert said[0].startswith("run tiny-") and "is in use by process" in said[0] and said[1] == "trained"


@pytest.mark.parametrize(
    "change", ["learning_rate = 0.003|learning_rate = 0.1", "log_every_steps = 3|log_every_steps = 4"]
)
def test_a_recipe_that_was_changed_in_the_run_folder_is_refused(
    tmp_path: Path, make_recipe: Make, etude: Etude, change: str
) -> None:
    recipe = make_recipe({"train.steps": 8})
    run = stopped(recipe, tmp_path / "runs")
    path = run.path / "resolved.toml"
    before, (old, new) = path.read_text(), change.split("|")
    assert old in before
    path.write_text(before.replace(old, new))
    for words in (
        ["resume", run.path],
        ["export", run.path, tmp_path / "out", "--to", "hf"],
        ["report", run.path],
    ):
        outcome = etude(*words)
        assert outcome.code == 2 and "resolved.toml was changed after run" in outcome.err, outcome.err
        assert len(outcome.err.splitlines()[-1]) <= 300
    with pytest.raises(InputError, match="bring it back, or start a new run with the change"):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))
    assert not (tmp_path / "out").exists() and run.state == "stopped"
    path.write_text("# a comment changes no value\n" + before)
    assert etude("resume", run.path).code == 0


def test_a_run_that_was_killed_before_its_values_were_found_out_is_continued(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"train.steps": 2})
    writer = create_run(tmp_path, recipe)
    writer.close("failed")
    assert run_recipe(recipe, Options(runs=tmp_path)).run.path == writer.run.path
    # Killed between environment.json and resolved.toml:
    run = stopped(make_recipe({"train.steps": 2, "seed": 5}), tmp_path, at=1)
    found = (run.path / "resolved.toml").read_bytes()
    (run.path / "resolved.toml").write_bytes((run.path / "recipe.toml").read_bytes())
    continued = run_recipe(make_recipe({"train.steps": 2, "seed": 5}), Options(runs=tmp_path)).run
    assert continued.path == run.path and (run.path / "resolved.toml").read_bytes() == found


def test_a_changed_recipe_starts_a_run_that_names_the_unfinished_one(
    tmp_path: Path, write_recipe: Callable[..., Path], etude: Etude, make_recipe: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs = tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    from etude.recipe.load import load_recipe

    path = write_recipe({"train.steps": 8})
    old = stopped(load_recipe(path), runs)
    outcome = etude("train", path, "optim.learning_rate=0.002", "train.steps=2", "--runs", "elsewhere")
    assert outcome.code == 0, outcome.err
    said, *_ = [line for line in outcome.err.splitlines() if "unfinished" in line]
    assert f"{old.name} is stopped" in said and "optim.learning_rate 0.003 -> 0.002" in said
    assert "train.steps 8 -> 2" in said and f"etude resume elsewhere/{old.name} continues" in said
    new = list_runs(runs)[-1]
    (finding,) = [entry.event for entry in new.ledger().entries if isinstance(entry.event, Finding)]
    assert finding.what == "another run is unfinished"
    assert old.state == "stopped"  # the newest of that name has finished now, so the next one names none
    again = etude("train", path, "optim.learning_rate=0.001", "train.steps=2", "--runs", runs)
    assert again.code == 0 and "unfinished" not in again.err


def test_other_first_weights_start_another_run(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"train.steps": 4})
    first = run_recipe(make_recipe({"train.steps": 2, "seed": 3}), Options(runs=tmp_path)).run
    scratch = stopped(recipe, tmp_path, at=2)
    named = run_recipe(recipe, Options(runs=tmp_path, weights=f"{first.name}@best")).run
    assert named.path != scratch.path and named.info["parent"] == first.name
    assert run_recipe(recipe, Options(runs=tmp_path)).run.path == scratch.path


def test_an_unfinished_run_from_one_checkpoint_is_not_continued_from_another(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"train.steps": 4})
    first = run_recipe(make_recipe({"train.steps": 8, "seed": 3}), Options(runs=tmp_path)).run
    early, late = (Options(runs=tmp_path, weights=f"{first.name}@step-{step}") for step in (4, 8))
    for step in Training(recipe, early):
        if step.number == 2:
            break
    (_, begun) = list_runs(tmp_path)
    other = run_recipe(recipe, late).run
    assert other.path != begun.path
    (finding,) = [entry.event for entry in other.ledger().entries if isinstance(entry.event, Finding)]
    assert finding.what == "another run is unfinished" and "other weights of" in finding.advice
    assert run_recipe(recipe, early).run.path == begun.path


def test_first_weights_given_by_the_name_of_the_recipe_are_those_of_the_run_before(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe()
    first = run_recipe(recipe, Options(runs=tmp_path)).run
    second = run_recipe(recipe, Options(runs=tmp_path, weights=recipe.name, new=True)).run
    third = run_recipe(recipe, Options(runs=tmp_path / "other", weights=str(first.path))).run
    final = "checkpoints/step-000012/model.safetensors"
    assert second.name != first.name
    assert (second.path / final).read_bytes() == (third.path / final).read_bytes()


def test_a_rank_that_does_not_see_the_run_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_SHARED_SECONDS", 0.0)
    with pytest.raises(InputError, match=r"/there, the run folder of rank 0, is not there on .*; put --runs"):
        start._require_folder(tmp_path / "there")

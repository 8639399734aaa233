"""The executor of a run, here and in ranks, and the seeds that it is given."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from etude.launch.seeds import execute, find_finished, find_seeds
from etude.recipe.load import load_recipe, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Control, Event
from etude.records.store import Run, list_runs
from etude.start import Options
from tests.forking import server

Make = Callable[..., Recipe]


class Interrupt:
    """Ctrl-C in the moment the end of the run is recorded, after the last step."""

    def show_plan(self, run: Run, rows: object) -> None: ...

    def acknowledge(self, signal: str) -> None: ...

    def write(self, event: Event) -> None:
        if isinstance(event, Control):
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None: ...


def test_ctrl_c_after_the_last_step_finishes_the_run_and_is_told(tmp_path: Path, make_recipe: Make) -> None:
    ended = execute(make_recipe({"train.steps": 2}), Options(runs=tmp_path / "runs", view=Interrupt()), [])
    assert ended.code == 0 and ended.was_asked and ended.run is not None and ended.run.state == "finished"


def test_a_seed_that_is_finished_is_not_executed_again(tmp_path: Path, make_recipe: Make) -> None:
    recipe, options = make_recipe({"train.steps": 2}), Options(runs=tmp_path / "runs")
    for seed in find_seeds(recipe, options, 2):
        assert seed.finished is None and execute(seed.recipe, seed.options, []).code == 0
    again = list(find_seeds(recipe, options, 3))
    assert [seed.recipe.seed for seed in again] == [17, 18, 19]
    assert [seed.finished and seed.finished.path for seed in again] == [
        *(run.path for run in list_runs(options.runs)), None
    ]  # fmt: skip
    anew = find_seeds(with_changes(recipe, {"optim.learning_rate": 1e-3}), options, 1)
    assert next(anew).finished is None


def test_a_finished_run_counts_for_its_own_recipe_data_and_first_weights_only(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe, options = make_recipe({"train.steps": 2}), Options(runs=tmp_path / "runs")
    assert find_finished(recipe, options) is None
    run = execute(recipe, options, []).run
    found = find_finished(recipe, options)
    assert run is not None and found is not None and found.path == run.path
    assert find_finished(with_changes(recipe, {"optim.learning_rate": 1e-3}), options) is None
    assert find_finished(recipe, replace(options, weights=f"{run.name}@best")) is None
    (run.path / "environment.json").write_text("{")
    assert find_finished(recipe, options) is None


def test_other_weights_of_the_same_run_or_folder_are_other_first_weights(
    tmp_path: Path, make_recipe: Make
) -> None:
    runs, recipe = tmp_path / "runs", make_recipe({"train.steps": 2})
    base = execute(make_recipe({"train.steps": 8, "seed": 5}), Options(runs=runs), []).run
    assert base is not None
    best, last, same = (
        Options(runs=runs, weights=f"{base.name}@{which}") for which in ("step-4", "last", "step-8")
    )
    assert execute(recipe, best, []).code == 0
    assert find_finished(recipe, best) is not None and find_finished(recipe, last) is None
    ended = execute(recipe, last, [])
    found = find_finished(recipe, last)
    assert ended.run is not None and found is not None and found.path == ended.run.path
    assert find_finished(recipe, same) is not None  # the last checkpoint is step 8
    assert len(list_runs(runs)) == 3
    folder = tmp_path / "weights"
    shutil.copytree(base.checkpoints / "step-000004", folder)
    given = replace(best, weights=str(folder))
    assert execute(recipe, given, []).code == 0 and find_finished(recipe, given) is not None
    shutil.copy(base.checkpoints / "step-000008" / "model.safetensors", folder)
    assert find_finished(recipe, given) is None


def test_a_run_whose_first_weights_were_not_hashed_is_known_by_its_parent(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"train.steps": 2})
    base = execute(make_recipe({"train.steps": 4, "seed": 5}), Options(runs=tmp_path), []).run
    assert base is not None
    options = Options(runs=tmp_path, weights=f"{base.name}@best")
    run = execute(recipe, options, []).run
    assert run is not None
    info = json.loads((run.path / "run.json").read_text())
    assert info.pop("weights")
    (run.path / "run.json").write_text(json.dumps(info))
    assert find_finished(recipe, options) is not None


def test_the_executor_starts_the_ranks_of_a_recipe_with_its_seed_and_folder(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    path = write_recipe({"train.steps": 2, "train.devices": 2})
    recipe = with_changes(load_recipe(path), {"seed": 5})
    with server().instead():
        ended = execute(recipe, Options(runs=tmp_path / "runs"), ["train", str(path)])
    (run,) = list_runs(tmp_path / "runs")
    assert (ended.code, ended.run and ended.run.path, run.recipe.seed) == (0, run.path, 5)
    assert [each.event.devices for each in run.ledger().entries if isinstance(each.event, Attempt)] == [2]

"""Runs whose steps need more than six digits."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.errors import InputError
from etude.export import export
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Finding
from etude.records.folder import step_of
from etude.records.store import Run, create_run
from etude.report.card import model_card
from etude.report.summary import summarize
from etude.run import Training, run_recipe
from etude.start import Options, find_weights
from tests.processes import begin_fork, in_a_fork

Make = Callable[..., Recipe]
STEPS = 1_000_006


def rename(run: Run, step: int) -> None:
    """Make the newest checkpoint of a run that of another step, as if so many steps had been made."""
    old = checkpoints.list_checkpoints(run.checkpoints)[-1]
    new = run.checkpoints / f"step-{step:06d}"
    old.rename(new)
    progress = replace(checkpoints.read_progress(new), step=step, best=None)
    manifest = json.loads((new / "manifest.json").read_bytes())
    written = durable.write_json(new / "state.json", asdict(progress))
    durable.write_json(
        new / "manifest.json",
        manifest | {"step": step, "files": manifest["files"] | {"state.json": asdict(written)}},
    )


def train(recipe: Recipe, options: Options, until: int) -> Run:
    training = Training(recipe, options)
    for step in training:
        if step.number == until:
            break
    return training.run


def test_a_run_goes_on_beyond_a_million_steps_and_keeps_the_newest(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({
        "train.steps": STEPS, "checkpoint.every_steps": 2, "checkpoint.keep": 2, "data.validation": "none",
        "schedule.kind": "constant",
    })  # fmt: skip
    options = Options(runs=tmp_path / "runs")
    run = train(recipe, options, 2)
    rename(run, 999_996)
    foreign = [
        run.checkpoints / name for name in ("step-000015.bak", "step-999998 copy", "step-15", "step-²")
    ]
    for path in foreign:
        path.mkdir()
        (path / "manifest.json").write_text("{}")
    assert train(recipe, options, 1_000_001).path == run.path
    # The newest two, and the best, which is one of the earlier ones by chance.
    names = [path.name for path in checkpoints.list_checkpoints(run.checkpoints)]
    assert names[-2:] == ["step-1000000", "step-1000001"]

    train(recipe, options, STEPS)
    names = [path.name for path in checkpoints.list_checkpoints(run.checkpoints)]
    assert names[-2:] == ["step-1000004", "step-1000006"]
    attempts = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Attempt)]
    assert [(each.from_step, each.checkpoint) for each in attempts] == [
        (0, None), (999_996, "step-999996"), (1_000_001, "step-1000001"),
    ]  # fmt: skip
    assert all(path.is_dir() for path in foreign)
    findings = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert any(each.what == "not a checkpoint" and "step-000015.bak" in each.evidence for each in findings)

    assert summarize(run)["checkpoints"] == names
    assert find_weights(f"{run.name}@last", options.runs).parent.name == "step-1000006"
    assert find_weights(f"{run.name}@step-1000004", options.runs).parent.name == "step-1000004"
    assert find_weights(str(run.path), options.runs).parent.name == run.best["checkpoint"]  # type: ignore[index]
    export(f"{run.name}@last", "hf", tmp_path / "out", runs=options.runs)
    assert "step-1000006" in (tmp_path / "out" / "README.md").read_text()
    assert "1,000,006 of 1,000,006" in model_card(run, "step-1000006", "hf")
    report = (run.path / "report" / "report.md").read_text()
    assert report.index("| `step-1000004` |") < report.index("| `step-1000006` |")


def test_killed_on_both_sides_of_a_million_steps_a_run_ends_with_the_same_bits(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({
        "model.dropout": 0.1, "train.steps": 1_000_040, "checkpoint.every_steps": 2, "checkpoint.keep": 2,
        "data.validation": "none", "schedule.kind": "constant",
    })  # fmt: skip
    whole = tmp_path / "whole"
    run = train(recipe, Options(runs=whole), 2)
    rename(run, 999_960)
    shutil.copytree(whole, tmp_path / "runs")
    train(recipe, Options(runs=whole), 1_000_041)
    folder = tmp_path / "runs" / run.name / "checkpoints"

    def go_on() -> None:
        run_recipe(recipe, Options(runs=tmp_path / "runs"))

    for beyond in (999_970, 1_000_003):
        life = begin_fork(go_on)
        while step_of(checkpoints.list_checkpoints(folder)[-1].name) < beyond:
            assert life.is_alive()
            time.sleep(0.002)
        life.kill()
        life.join()
        assert life.exitcode == -signal.SIGKILL
    assert in_a_fork(go_on) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        bits = [each / "step-1000040" / name for each in (folder, run.checkpoints)]
        assert bits[0].read_bytes() == bits[1].read_bytes()
    names = [path.name for path in checkpoints.list_checkpoints(folder)]
    assert names[-2:] == ["step-1000038", "step-1000040"]


@pytest.mark.parametrize("choice", ["", "@", "@@best", "@step-", "@step-²", "@step--1", "@step-1_0", "@step-000015.bak",
                                    "@first", "@BEST", "@last ", "@step-" + "9" * 5000])  # fmt: skip
def test_what_names_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, make_recipe: Make, choice: str
) -> None:
    run = create_run(tmp_path, make_recipe()).run
    with pytest.raises(
        InputError, match=r"there is no checkpoint|has no checkpoint|there is no run|no run is named"
    ) as no:
        find_weights(f"{run.name}{choice}", tmp_path)
    assert "\n" not in str(no.value) and len(str(no.value)) < 300
    with pytest.raises(InputError):
        find_weights(choice, tmp_path)


def test_a_folder_whose_name_has_an_at_sign_is_a_run(tmp_path: Path, make_recipe: Make) -> None:
    run = create_run(tmp_path / "me@host", make_recipe()).run
    (run.checkpoints / "step-000004").mkdir()
    (run.checkpoints / "step-000004" / "manifest.json").write_text("{}")
    assert find_weights(str(run.path), tmp_path).parent.name == "step-000004"
    assert find_weights(f"{run.path}@step-4", tmp_path).parent.name == "step-000004"

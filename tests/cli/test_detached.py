"""A detached run outlives the command that started it, and another command follows it to its end."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from etude.processes import python_command, python_environment
from etude.recipe.load import load_recipe
from etude.recipe.schema import Recipe
from etude.records.store import list_runs
from etude.run import run_recipe
from etude.start import Options


def etude(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python_command("etude", *map(str, words)), env=python_environment(), capture_output=True, text=True,
        timeout=300, check=False, **more,  # type: ignore[call-overload]
    )  # fmt: skip


def test_a_detached_run_ends_by_itself_in_a_session_of_its_own_and_is_followed(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    runs = tmp_path / "runs"
    slow = ["train.steps=4000", "evaluate.every_steps=1000", "checkpoint.every_steps=1000"]
    started = etude("train", write_recipe(), *slow, "--runs", runs, "--detach")
    assert started.returncode == 0, started.stderr
    (run,) = list_runs(runs)
    process = psutil.Process(run.lease["pid"])
    try:
        assert f"run {run.path} goes on as process" in started.stderr and run.state == "running"
        assert os.getsid(process.pid) != os.getsid(0)
        words = python_command("etude", "show", str(run.path), "--follow")
        follower = subprocess.Popen(words, env=python_environment(), stderr=subprocess.PIPE, text=True)
        assert follower.stderr is not None and follower.stderr.readline().startswith("run ")
        process.send_signal(signal.SIGTERM)
        said = follower.communicate(timeout=300)[1]
    finally:
        if process.is_running():
            process.kill()
    assert follower.returncode == 0
    assert "stop: SIGTERM was received" in said and said.splitlines()[-1].startswith(
        "Not finished: stopped at step "
    )
    assert "continue with: etude resume" in (run.path / "output.txt").read_text("utf-8")
    assert not [each for each in runs.iterdir() if each.name.endswith(".output")]


def test_a_run_that_cannot_begin_says_so_and_leaves_nothing(
    tmp_path: Path, write_recipe: Callable[..., Path], corpus: Path
) -> None:
    runs, recipe = tmp_path / "runs", write_recipe()
    corpus.unlink()
    failed = etude("train", recipe, "--runs", runs, "--detach")
    assert failed.returncode == 2 and "error: " in failed.stderr
    assert not list_runs(runs) and not [each for each in runs.iterdir() if each.name.endswith(".output")]


def test_a_finished_run_is_followed_to_its_outcome(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    run = run_recipe(make_recipe(), Options(runs=tmp_path / "runs")).run
    followed = etude("show", run.path, "--follow")
    assert followed.returncode == 0 and "Finished 12 steps" in followed.stderr


@pytest.mark.parametrize(
    "words", [["show", "RUN", "--follow", "--json"], ["train", "RECIPE", "--repeat", "2", "--detach"]]
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, write_recipe: Callable[..., Path], words: list[str]
) -> None:
    runs = tmp_path / "runs"
    recipe = write_recipe()
    run = run_recipe(load_recipe(recipe), Options(runs=runs)).run
    given = [{"RUN": run.path, "RECIPE": recipe}.get(word, word) for word in words]
    refused = etude(*given, "--runs", runs)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "leave it out" in refused.stderr

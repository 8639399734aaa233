"""The command that writes a second version of a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run, hold_run
from etude.run import run_recipe
from etude.start import Options


def run_with(finding: Finding, make_recipe: Callable[..., Recipe], folder: Path) -> Run:
    """A finished run with one more finding."""
    run = run_recipe(make_recipe(), Options(runs=folder / "runs")).run
    writer = hold_run(run)
    writer.append(finding)
    writer.close("finished")
    return run


def test_the_command_writes_both_and_overwrites_nothing(
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    etude: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"optim.learning_rate": 1e-3}
    jump = Finding(8, "the loss *jumps*", "9.1 where 2.0 was usual", "", kind="jumps", changes=changes)
    run = run_with(jump, make_recipe, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = etude("improve", run.name)
    assert done.code == 0 and "0.001, was 0.003: the loss *jumps*, step 8" in done.out
    assert f"etude compare {run.name} tiny-v2\n" in done.out
    assert (tmp_path / "tiny-v2.toml").exists() and (tmp_path / "tiny-v2.strategy.md").exists()
    before = (tmp_path / "tiny-v2.toml").read_bytes()
    assert etude("improve", run.name) == done and (tmp_path / "tiny-v2.toml").read_bytes() == before
    (tmp_path / "tiny-v2.strategy.md").unlink()  # as a kill leaves it
    assert etude("improve", run.name) == done and (tmp_path / "tiny-v2.strategy.md").exists()
    (tmp_path / "tiny-v2.toml").write_bytes(before + b"# mine\n")
    again = etude("improve", run.name)
    assert again.code == 2 and "tiny-v2.toml is there already" in again.err
    assert (tmp_path / "tiny-v2.toml").read_bytes() == before + b"# mine\n"
    assert etude("improve", "nothing").code == 2
    (tmp_path / "other.strategy.md").write_text("mine")
    refused = etude("improve", run.name, "--out", "other.toml")
    assert refused.code == 2 and "other.strategy.md is there already; give another" in refused.err
    assert not (tmp_path / "other.toml").exists()


def test_a_run_whose_steps_are_counted_is_made_shorter(
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    etude: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own: dict[str, Any] = {"name": "evil", "records.parent": "other", "data": {"x": 1}, "train.epochs": 1}
    rise = Finding(12, "validation rises", "2, 3", "", kind="rise", window=[8, 12], changes=own)
    run = run_with(rise, make_recipe, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = etude("improve", run.name, "--json")
    assert done.code == 0 and '"train.steps": 8' in done.out, done.err
    written = (tmp_path / "tiny-v2.toml").read_text()
    assert "evil" not in written and "other" not in written

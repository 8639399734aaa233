"""The trials of a stack in one process: what is finished stays, and what fails is told."""

from pathlib import Path

import pytest

from etude.engine.stack import Stack
from etude.recipe.load import to_toml
from etude.sweep import together
from etude.sweep.together import run_stack
from tests import bases
from tests.recipes import finetuning


def test_one_that_fails_is_told_by_name_and_a_finished_one_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Stack()
    monkeypatch.setattr(together, "Stack", lambda: shared)
    bases.write_instructions(tmp_path / "rows.jsonl")
    base, paths = bases.write_qwen2(tmp_path / "base"), list[Path]()
    for name, rate in (("calm", 1e-3), ("wild", 1e39)):
        changes = {"name": name, "adapter.rank": 2, "train.steps": 3, "optim.learning_rate": rate}
        paths.append(tmp_path / f"{name}.toml")
        paths[-1].write_text(to_toml(finetuning(tmp_path / "rows.jsonl", base, changes)))
    told: list[str] = []
    calm, wild = run_stack(paths, tmp_path / "runs", told.append)
    assert (calm.code, wild.code) == (0, 1) and shared.passes
    assert calm.run is not None and not calm.run.is_unfinished
    assert len(told) == 1 and told[0].startswith("error: wild: the update of step ")
    before = (calm.run.path / "journal.jsonl").read_bytes()
    (again,) = run_stack(paths[:1], tmp_path / "runs", told.append)
    assert again.code == 0 and (calm.run.path / "journal.jsonl").read_bytes() == before

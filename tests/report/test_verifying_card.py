"""The card and the files of an exported model follow from its run; what was edited or exchanged is told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.errors import InputError
from etude.export import export
from etude.records.events import Note
from etude.records.store import Run, append_note
from etude.report.verifying_card import verify_export
from etude.run import run_recipe
from etude.start import Options


@pytest.fixture
def exported(make_recipe: Callable[..., Any], tmp_path: Path) -> Path:
    run = run_recipe(make_recipe({"checkpoint.keep": "all"}), Options(runs=tmp_path / "runs")).run
    return export(f"{run.path}@step-8", "hf", tmp_path / "exported")


def test_a_card_follows_from_its_run_and_an_edit_is_told(exported: Path) -> None:
    runs = exported.parent / "runs"
    made = verify_export(exported, runs)
    assert made.deviations == [] and made.open == [] and made.examined["files of the export"] >= 2
    append_note(Run(next(runs.glob("tiny-*"))), Note("lessons", "said later"))
    assert verify_export(exported, runs).deviations == []
    card = exported / "README.md"
    card.write_text(re.sub(r"(\| Targets \| )\d", r"\g<1>9", card.read_text()))
    (deviation,) = verify_export(exported, runs).deviations
    assert deviation.kind == "digit" and deviation.line


def test_weights_of_another_checkpoint_are_told(exported: Path) -> None:
    run = next((exported.parent / "runs").glob("tiny-*"))
    other = run / "checkpoints/step-000004/model.safetensors"
    (exported / "model.safetensors").write_bytes(other.read_bytes())
    (deviation,) = verify_export(exported, run.parent).deviations
    assert (deviation.file, deviation.kind) == ("model.safetensors", "checkpoint")


def test_a_head_that_the_journal_never_had_is_told(exported: Path) -> None:
    card = exported / "README.md"
    card.write_text(re.sub(r"(at export \| `)\w{8}", r"\g<1>00000000", card.read_text()))
    kinds = [each.kind for each in verify_export(exported, exported.parent / "runs").deviations]
    assert kinds[0] == "chain"


def test_a_readme_of_another_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Hello\n")
    with pytest.raises(InputError, match="no card that etude export writes"):
        verify_export(tmp_path, tmp_path)

"""The commands that use a model, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Etude = Callable[..., Outcome]
Write = Callable[..., Path]


def test_an_export_lists_the_files_that_it_wrote(write_recipe: Write, tmp_path: Path, etude: Etude) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    rows = json.loads(etude("export", "tiny", out, "--to", "hf", "--runs", runs, "--json").out)
    assert rows.pop("folder") == str(out) and rows.pop("load with")
    assert set(rows) == {path.name for path in out.iterdir()} >= {"config.json", "README.md"}


def test_generate_writes_as_many_tokens_as_are_asked_for(
    write_recipe: Write, tmp_path: Path, etude: Etude
) -> None:
    runs = tmp_path / "runs"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    words = ("generate", "tiny", "--prompt", "def ", "--temperature", 0, "--max-tokens", 3, "--runs", runs)
    (text,) = json.loads(etude(*words, "--json").out)
    assert text["prompt"] == "def " and text["tokens"] <= 3
    assert etude(*words).out == f"def {text['text']}\n"

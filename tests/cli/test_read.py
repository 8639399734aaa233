"""The commands that read runs, as text and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Etude = Callable[..., Outcome]
Write = Callable[..., Path]


def test_every_reading_command_speaks_json(write_recipe: Write, tmp_path: Path, etude: Etude) -> None:
    recipe = write_recipe({"train.steps": 3})
    runs = tmp_path / "runs"
    for _ in range(2):
        assert etude("train", recipe, "--runs", runs, "--new").code == 0
    first, second = sorted(path for path in runs.iterdir() if not path.name.startswith("."))
    for words in (
        ["check", recipe, "--json"], ["check", recipe, "--deep", "--json"], ["prepare", recipe, "--json"],
        ["schema"], ["runs", "--runs", runs, "--json"], ["show", first, "--json"],
        ["compare", first, second, "--json"], ["report", first, "--json"],
    ):  # fmt: skip
        done = etude(*words)
        assert done.code == 0, done
        json.loads(done.out)


def test_a_note_is_kept_in_its_section_and_an_empty_one_is_refused(
    write_recipe: Write, tmp_path: Path, etude: Etude
) -> None:
    runs = tmp_path / "runs"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    empty = etude("note", "tiny", " ", "--section", "lessons", "--runs", runs)
    assert empty.code == 2 and "the note is empty" in empty.err
    assert etude("note", "tiny", "warm up longer", "--section", "lessons", "--runs", runs).code == 0
    report = Path(etude("report", "tiny", "--runs", runs).out.strip()).read_text()
    assert "warm up longer" in report[report.index("essons") :]


def test_a_run_whose_recipe_was_edited_is_shown_with_a_warning(
    write_recipe: Write, tmp_path: Path, etude: Etude
) -> None:
    runs = tmp_path / "runs"
    assert etude("train", write_recipe({"train.steps": 1}), "--runs", runs).code == 0
    (resolved,) = runs.glob("tiny-*/resolved.toml")
    resolved.write_text(resolved.read_text().replace("learning_rate = 0.003", "learning_rate = 0.001"))
    shown = etude("show", "tiny", "--runs", runs)
    assert shown.code == 0 and shown.err.startswith("warning: ")

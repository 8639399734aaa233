from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from etude.errors import InputError, MissingError, RecipeError
from etude.ui.library import Library
from etude.ui.starting import Starts, places, write_recipe
from tests.report.runs import finished_run


def test_a_recipe_is_written_trained_and_answered_with_its_run(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    text = write_recipe({"train.steps": 4000}).read_text()
    library, starts = Library([tmp_path / "runs"]), Starts()
    found = starts.start(library, text, patience_seconds=60)
    while "run" not in found and "problem" not in found:
        found = starts.look(library, found["start"], 10)
    run = library.run(found["run"])
    try:
        assert run.state == "running"
        assert found["recipe"] == "tiny.toml"
        assert (tmp_path / "tiny.toml").read_text() == text
    finally:
        process = psutil.Process(run.lease["pid"])
        process.kill()
        process.wait()


def test_a_training_that_cannot_begin_is_a_problem_in_one_line(
    tmp_path: Path, write_recipe: Callable[..., Path], corpus: Path
) -> None:
    text = write_recipe().read_text()
    corpus.unlink()
    library, starts = Library([tmp_path / "runs"]), Starts()
    found = starts.start(library, text, patience_seconds=60)
    while "problem" not in found:
        found = starts.look(library, found["start"], 10)
    assert "corpus.jsonl" in found["problem"]
    assert "\n" not in found["problem"]
    with pytest.raises(MissingError):
        starts.look(library, "other")


def test_a_recipe_with_problems_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        Starts().start(Library([tmp_path]), 'name = "../../x"')
    assert list(tmp_path.iterdir()) == []


def test_no_recipe_is_overwritten_and_none_lies_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("mine")
    assert write_recipe(tmp_path, "a", "new").name == "a-2.toml"
    assert write_recipe(tmp_path, "a", "new").name == "a-2.toml"
    (tmp_path / "b.toml").symlink_to(tmp_path / "elsewhere.toml")
    assert write_recipe(tmp_path, "b", "new").name == "b-2.toml"
    assert (tmp_path / "a.toml").read_text() == "mine"
    assert not (tmp_path / "elsewhere.toml").exists()
    with pytest.raises(InputError, match="no folder"):
        write_recipe(tmp_path / "no", "a", "new")


def test_recipes_lie_beside_a_folder_of_runs(tmp_path: Path) -> None:
    assert places(Library([tmp_path / "runs"])) == (tmp_path, tmp_path / "runs")
    assert places(Library([tmp_path])) == (tmp_path, tmp_path / "runs")
    run = finished_run(tmp_path / "old")
    assert places(Library([tmp_path / "old"])) == (tmp_path / "old", tmp_path / "old")
    assert places(Library([run.path])) == (tmp_path / "old", tmp_path / "old")

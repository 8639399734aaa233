"""Recipes that come with etude, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.recipes import shipped_recipe, shipped_recipes
from etude.errors import InputError
from etude.recipe.load import load_recipe
from tests.conftest import Outcome

Etude = Callable[..., Outcome]
FOLDER = Path(__file__).parents[2] / "recipes"


def test_every_recipe_of_the_repository_is_listed_with_a_sentence(etude: Etude) -> None:
    listed = json.loads(etude("recipes", "--json").out)
    assert set(listed) == {path.stem for path in FOLDER.glob("*.toml")}
    assert all(len(sentence) > 20 for sentence in listed.values())
    assert all(name in etude("recipes").out for name in listed)


def test_a_recipe_is_shown_and_copied_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etude: Etude
) -> None:
    monkeypatch.chdir(tmp_path)
    assert etude("recipes", "show", "demo").out == (FOLDER / "demo.toml").read_text()
    (tmp_path / "folder").mkdir()
    for words, path in (((), "demo.toml"), (("mine.toml",), "mine.toml"), (("folder",), "folder/demo.toml")):
        assert etude("recipes", "copy", "demo", *words).code == 0
        assert (tmp_path / path).read_bytes() == (FOLDER / "demo.toml").read_bytes()
        again = etude("recipes", "copy", "demo", *words)
        assert again.code == 2 and "is there already" in again.err
    (tmp_path / "link.toml").symlink_to(tmp_path / "nothing")
    assert "is there already" in etude("recipes", "copy", "demo", "link.toml").err
    assert (tmp_path / "link.toml").is_symlink()
    assert "lies in no folder" in etude("recipes", "copy", "demo", "gone/a.toml").err
    assert etude("check", "mine.toml").code == 0


def test_a_recipe_that_is_not_there_leads_to_the_nearest() -> None:
    with pytest.raises(InputError, match="no recipe dmo comes with etude; did you mean demo"):
        shipped_recipe("dmo")
    recipes = {name: path for name, path in shipped_recipes().items() if "[[tiers]]" not in path.read_text()}
    assert {load_recipe(path).name for path in recipes.values()} == set(recipes)


def test_a_wheel_has_the_recipes_where_they_are_looked_for() -> None:
    settings = (FOLDER.parent / "pyproject.toml").read_text()
    assert 'force-include]\nrecipes = "etude/recipes"' in settings

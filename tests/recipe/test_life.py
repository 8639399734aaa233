from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import RecipeError
from etude.recipe.load import load_recipe, recipe_hash

Write = Callable[..., Path]


def test_how_a_run_lives_makes_no_other_recipe(write_recipe: Write) -> None:
    path = write_recipe()
    other = load_recipe(path, ["run.session_limit=11h30m", "run.mirror=copies"])
    assert recipe_hash(other) == recipe_hash(load_recipe(path))
    assert other.run.mirror == str(path.parent / "copies") and other.run.session_limit == "11h30m"
    assert load_recipe(path, ["run.mirror=s3://bucket/runs"]).run.mirror == "s3://bucket/runs"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("run.session_limit=soon", 'run.session_limit (override) is "soon"; it must be a duration in d, h'),
        ("run.session_limit=30", 'it must be a text in quotes; try "11h30m"'),
        ("run.mirror_data=true", "is true without run.mirror"),
        ("run.mirror=s3://key:secret@bucket", "the keys for it in the environment"),
        ("run.mirror=zip://x::/etc/passwd", "not the plain address of a bucket"),
        ("run.mirror=", "run.mirror (override)"),
    ],
)
def test_a_life_that_cannot_be_is_refused(write_recipe: Write, override: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(), [override])
    assert problem in caught.value.problems[0]

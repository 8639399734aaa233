"""The sections of the data refuse what they cannot mean, each by its key and with a value to try."""

from collections.abc import Callable
from typing import Any

import pytest

from etude.errors import RecipeError
from etude.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data.near_threshold", 0.4, "near_threshold"),
        ("data.validation_ratio", 1.0, "validation_ratio"),
        ("data.validation", "all", "validation"),
        ("data.train", [], "train"),
        ("data.clean.secret", "mask", "secret"),
    ],
)
def test_a_value_that_no_data_can_have_is_refused_by_its_key(
    make_recipe: Callable[..., Recipe], key: str, value: Any, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        make_recipe({key: value})


def test_validation_is_a_part_of_the_training_rows_unless_it_has_sources_or_is_none(
    make_recipe: Callable[..., Recipe],
) -> None:
    recipe = make_recipe()
    assert recipe.data.validation is None and 0 < recipe.data.validation_ratio < 1
    assert make_recipe({"data.validation": "none"}).data.validation == "none"

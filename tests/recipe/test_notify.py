"""[[notify]] of a recipe: no secret, no part of the identity, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from etude.errors import RecipeError
from etude.recipe.load import load_recipe, recipe_from, recipe_hash, to_toml
from etude.recipe.notify import Notify
from tests.recipes import tiny


def test_channels_are_no_part_of_what_a_recipe_computes(tmp_path: Path) -> None:
    plain = recipe_from(tiny(tmp_path))
    told = recipe_from(tiny(tmp_path, {"notify": [{"channel": "line"}]}))
    assert recipe_hash(plain) == recipe_hash(told)
    (tmp_path / "recipe.toml").write_text(to_toml(told))
    assert load_recipe(tmp_path / "recipe.toml").notify == told.notify


def test_variables_have_the_name_of_the_channel() -> None:
    assert Notify(channel="line").variables == {"TOKEN": "ETUDE_LINE_TOKEN", "TO": "ETUDE_LINE_TO"}
    assert Notify(channel="webhook", name="my-team.2").variables == {"URL": "ETUDE_MY_TEAM_2_URL"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"channel": "lnie"}, 'is "lnie"; it must be .* try "line"'),
        ({}, "notify.0.channel .* is missing"),
        ({"channel": "line", "on": ["finish"]}, 'notify.0.on.0 .* is "finish"; .* try "finished"'),
        ({"channel": "line", "on": []}, "it needs at least 1 entry"),
        ({"channel": "line", "per_day": 0}, "notify.0.per_day .* is 0; it must be above 0"),
        ({"channel": "line", "per_month": -5}, "notify.0.per_month .* is -5; it must be above 0"),
        ({"channel": "line", "severity": "warn"}, 'try "warning"'),
        ({"channel": "line", "token": "s3cret"}, "notify.0.token .* come from variables of the environment"),
        ({"channel": "webhook", "url": "https://s3cret"}, "notify.0.url .* come from variables"),
        ({"channel": "line", "to": "Us3cret"}, "notify.0.to .* come from variables"),
        ({"channel": "line", "per_mouth": 3}, "did you mean per_month"),
    ],
)
def test_what_a_channel_cannot_have_is_named_without_a_secret(
    tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        recipe_from(tiny(tmp_path, {"notify": [values]}))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"channel": "line", "token": "s3cret"}, [["s3cret"]], [{"channel": "https://hooks.example/s3cret"}]],
)
def test_a_value_that_may_hold_a_secret_is_not_shown(tmp_path: Path, given: Any) -> None:
    with pytest.raises(RecipeError, match=r"notify.* is a (table|list|long word); it must be") as caught:
        recipe_from(tiny(tmp_path, {"notify": given}))
    assert "s3cret" not in str(caught.value)


def test_two_channels_have_two_names(tmp_path: Path) -> None:
    same = [{"channel": "line"}, {"channel": "webhook"}, {"channel": "line"}]
    with pytest.raises(RecipeError, match=r"notify.2.name .* another channel has the variables"):
        recipe_from(tiny(tmp_path, {"notify": same}))
    with pytest.raises(RecipeError, match=r"notify .* has 11 channels"):
        recipe_from(tiny(tmp_path, {"notify": [{"channel": "line", "name": f"n{n}"} for n in range(11)]}))

from typing import Any

import pytest
from pydantic import ValidationError

from etude.errors import RecipeError
from etude.recipe.load import recipe_from
from etude.recipe.problems import describe, group_by_keys
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator

DATA: dict[str, Any] = {"name": "a", "data": {"train": [{"path": "a.jsonl"}]}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": "3"}, 'seed (r.toml) is "3"; it must be a whole number; try 17'),
        ({"tasks": {"one": {}}}, "tasks.one.objective (r.toml) is missing; every recipe needs it"),
        ({"launch": {"ray": True}}, "launch (r.toml) is not a key of a recipe; ranks are started by --devices (tr"),
        ({"train": {"seq_lenn": 4}}, "train.seq_lenn (r.toml) is not a key of a recipe; did you mean seq_len?"),
        ({"optim": {"lr": 1}}, "optim.lr (r.toml) is not a key of a recipe; did you mean learning_rate?"),
        ({"train": {"learning_rate": 1}}, "train.learning_rate (r.toml) is not a key of a recipe; did you mean optim"),
        ({"optim": {"zzz": 1}}, "optim.zzz (r.toml) is not a key of a recipe; known here: kind, learning_rate"),
        ({"data": {"train": [{"max_bytes": 0}]}}, "data.train.0.max_bytes (r.toml) is 0; it must be above 0"),
        ({"model": {"from": 3}}, "model.from (r.toml) is 3; it must be a text in quotes; try"),
        ({"train": {"micro_batch_size": "AUTO"}}, 'train.micro_batch_size (r.toml) is "AUTO"; it must be a whole number, or \'auto\'; try 8'),
        ({"train": {"max_grad_norm": "off"}}, 'train.max_grad_norm (r.toml) is "off"; it must be a number, or \'none\'; try 1.0'),
        ({"checkpoint": {"keep": 1}}, "checkpoint.keep (r.toml) is 1; it must be at least 2, or 'all'; try 3"),
        ({"train": {"device": "gpu"}}, "train.device (r.toml) is \"gpu\"; it must be 'auto', 'cpu', 'cuda' or 'mps'; try"),
    ],
)  # fmt: skip
def test_a_problem_names_key_value_and_remedy(values: dict[str, Any], sentence: str) -> None:
    data = DATA | values
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    ((keys, problems),) = group_by_keys(caught.value.errors(include_url=False), data).items()
    assert describe(keys, problems, Locator("", "r.toml", {})).startswith(sentence)


def test_a_fault_within_a_list_is_not_answered_with_the_word_that_could_stand_there() -> None:
    data = DATA | {"data": DATA["data"] | {"validation": [{"path": "v.jsonl", "feild": "code"}]}}
    with pytest.raises(RecipeError) as caught:
        recipe_from(data)
    (problem,) = caught.value.problems
    assert problem.startswith(
        "data.validation.0.feild (recipe) is not a key of a recipe; did you mean field?"
    )

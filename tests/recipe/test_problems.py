from typing import Any

import pytest
from pydantic import ValidationError

from etude.recipe.problems import describe, find_keys
from etude.recipe.schema import Recipe
from etude.recipe.toml import Locator

DATA: dict[str, Any] = {"name": "a", "data": {"train": [{"path": "a.jsonl"}]}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": "3"}, 'seed (r.toml) is "3"; it must be a whole number; try 17'),
        ({"tasks": {"one": {}}}, "tasks.one.objective (r.toml) is missing; every recipe needs it"),
        ({"train": {"seq_lenn": 4}}, "train.seq_lenn (r.toml) is not a key of a recipe; did you mean seq_len?"),
        ({"optim": {"lr": 1}}, "optim.lr (r.toml) is not a key of a recipe; did you mean learning_rate?"),
        ({"train": {"learning_rate": 1}}, "train.learning_rate (r.toml) is not a key of a recipe; did you mean optim"),
        ({"optim": {"zzz": 1}}, "optim.zzz (r.toml) is not a key of a recipe; known here: kind, learning_rate"),
        ({"data": {"train": [{"max_bytes": 0}]}}, "data.train.0.max_bytes (r.toml) is 0; it must be above 0"),
        ({"model": {"from": 3}}, "model.from (r.toml) is 3; it must be a text in quotes; try"),
    ],
)  # fmt: skip
def test_a_problem_names_key_value_and_remedy(values: dict[str, Any], sentence: str) -> None:
    data = DATA | values
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    problem = caught.value.errors(include_url=False)[0]
    keys = find_keys(problem, data)
    assert describe(keys, problem, Locator("", "r.toml", {})).startswith(sentence)

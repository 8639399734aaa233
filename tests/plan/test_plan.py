"""Problems of a recipe are told all at once, however far apart they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from etude.errors import RecipeError
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests import bases
from tests.recipes import tiny

Make = Callable[..., Recipe]


def test_problems_of_device_adapter_and_data_are_told_at_once(tmp_path: Path) -> None:
    changes = {
        "model": {"from": str(bases.write_qwen2(tmp_path / "base"))},
        "adapter": {"rank": 4, "targets": ["no_such_layer"]},
        "tokenizer": {}, "train.device": "mps" if not torch.backends.mps.is_available() else "cuda",
    }  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe_from(tiny(tmp_path / "not-there.jsonl", changes)))
    found = caught.value.problems
    assert len(found) == 3
    for word in ("train.device", "not-there.jsonl", "no_such_layer"):
        assert sum(word in problem for problem in found) == 1, found


def test_problems_of_prompts_and_of_the_metric_are_told_at_once(make_recipe: Make) -> None:
    changes = {"evaluate.prompts": ["def ", "total = left + right\n" * 40], "evaluate.metric": "f1"}
    with pytest.raises(RecipeError) as caught:
        make_plan(make_recipe(changes))
    prompt, metric = caught.value.problems
    assert "evaluate.prompts[1]" in prompt and 'evaluate.metric is "f1"' in metric

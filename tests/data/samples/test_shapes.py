from collections.abc import Callable
from typing import Any

import pytest

from etude.data.samples.shapes import SHAPES, allowed_shapes, choose_shape
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.schema import Recipe
from tests.bases import write_instructions


def test_each_shape_that_a_kind_names_is_there() -> None:
    assert {kind.shape for kind in TRAINING_KINDS.values() if kind.shape} < set(SHAPES)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "texts"), ({"data.sample": "document"}, "texts"), ({"rows": True}, "examples"),
        ({"model": {"from": "base"}, "tokenizer": {}, "data.sample": "document"}, "examples"),
        ({"train.objective": "masked", "model": {"kind": "encoder"}}, "texts"),
        ({"train.objective": "seq2seq", "model": {"kind": "encoder-decoder"}, "rows": True}, "pairs"),
        ({"train.objective": "classification", "model": {"kind": "encoder"}, "data.train.0.label": "y"}, "labelled"),
    ],
)  # fmt: skip
def test_the_kind_of_training_or_else_the_rows_choose_the_shape(
    changes: dict[str, Any], name: str, make_recipe: Callable[..., Recipe], tmp_path: Any
) -> None:
    if changes.pop("rows", False):
        changes["data.train.0.path"] = str(write_instructions(tmp_path / "rows.jsonl", 4))
    recipe = make_recipe(changes)
    shape = choose_shape(recipe)
    assert shape.name == name and shape in allowed_shapes(recipe)

"""The JSON Schema, held against recipes by an implementation of its own."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from etude.recipe.json_schema import SCHEMA_FILE, json_schema, may_write_schema, write_schema
from etude.recipe.load import change, load_recipe
from etude.recipe.schema import Recipe

FILES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
RECIPES = [path for path in FILES if "[[tiers]]" not in path.read_text()]
SMALL: dict[str, Any] = {
    "name": "a",
    "data": {"train": [{"path": "a.jsonl"}]},
    "train": {"steps": 1, "global_batch_size": 1},
}


def problems(values: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.json_path for error in validator.iter_errors(values)]


def test_the_schema_is_one_of_its_dialect_with_a_name_of_its_own() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == "urn:etude:recipe"
    assert r"\A" not in json.dumps(schema).replace("\\\\", "\\")


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_shipped_recipe_fits_the_schema(path: Path) -> None:
    assert problems(load_recipe(path).to_dict()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("optim.lr", 1.0), ("name", "No Name"), ("optim.kind", "sgd"), ("train.seq_len", 1), ("train.compile", "yes")],
)  # fmt: skip
def test_what_a_recipe_refuses_an_editor_marks(key: str, value: Any) -> None:
    assert problems(SMALL) == []
    assert len(problems(change(SMALL, {key: value}))) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.max_grad_norm", "none"), ("train.max_grad_norm", 0.5), ("train.micro_batch_size", "auto"),
        ("data.validation", "none"), ("checkpoint.keep", "all"), ("optim.learning_rate", 1),
    ],
)  # fmt: skip
def test_what_a_recipe_takes_an_editor_does_not_mark(key: str, value: Any) -> None:
    values = change(SMALL, {key: value})
    Recipe.model_validate(values)
    assert problems(values) == []


def test_the_schema_is_written_where_nothing_else_stands(tmp_path: Path) -> None:
    assert may_write_schema(tmp_path)
    write_schema(tmp_path)
    assert json.loads((tmp_path / SCHEMA_FILE).read_text()) == json_schema()
    assert may_write_schema(tmp_path)  # its own, perhaps of an older etude
    for text in ("{}", "no JSON", '{"$id": "https://example.org/a"}'):
        (tmp_path / SCHEMA_FILE).write_text(text)
        assert not may_write_schema(tmp_path)

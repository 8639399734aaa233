"""Rows of a test as a recipe, and what is found in them."""

import json
from pathlib import Path
from typing import Any

from etude.audit.rows import find_in_rows
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests import recipes


def found(recipe: Recipe) -> dict[str, str]:
    return {each.kind: each.evidence for task in make_plan(recipe).tasks for each in find_in_rows(task)}


def rows_of(tmp_path: Path, rows: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> Recipe:
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe_from(recipes.tiny(path, {"train.seq_len": 128, **(changes or {})}))


def code(number: int) -> str:
    return f"def f_{number}(x):\n    return x * {number * 7919 % 97} + {number}"

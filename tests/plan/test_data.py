"""The data of a plan: one set of prepared samples for each task, with the sizes that the model takes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from etude.errors import RecipeError
from etude.own import Own
from etude.plan.data import data_sizes, join_samples, prepare_tasks
from etude.plan.model import find_base
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from tests import bases
from tests.recipes import tiny

Make = Callable[..., Recipe]


def two_tasks(folder: Path, rows: Path, other: Path) -> Recipe:
    changes = {
        "model": {"from": str(bases.write_encoder(folder / "base", masked=True))}, "tokenizer": {},
        "data.sample": "document", "evaluate.metric": "kinds:f1",
        "tasks": {"kinds": {"objective": "classification"}, "text": {"objective": "masked", "ratio": 2.0}},
        "data.train": [
            {"path": str(rows), "label": "label", "task": "kinds"}, {"path": str(other), "task": "text"}
        ],
    }  # fmt: skip
    return recipe_from(tiny(rows, changes))


def test_sizes_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = bases.write_labelled(tmp_path / "rows.jsonl", 60)
    recipe = two_tasks(tmp_path, rows, rows)
    tasks, base = prepare_tasks(recipe, find_base(recipe, Own()), Own(), today=None)
    samples = join_samples(recipe, tasks)
    sizes = data_sizes(tasks, samples, base)
    classes = {json.loads(line)["label"] for line in rows.read_text().splitlines()}
    assert sizes.classes == {"kinds": len(classes), "text": 0} and not sizes.multi
    assert base is not None and sizes.vocab_size == len(AutoTokenizer.from_pretrained(base.path))
    # An epoch ends when the task of twice the ratio has shown all its samples.
    assert len(samples) == len(tasks[1].corpus.train) * 3 // 2


def test_the_problems_of_all_tasks_are_told(tmp_path: Path) -> None:
    recipe = two_tasks(tmp_path, tmp_path / "first.jsonl", tmp_path / "second.jsonl")
    with pytest.raises(RecipeError) as caught:
        prepare_tasks(recipe, find_base(recipe, Own()), Own(), today=None)
    first, second = caught.value.problems
    assert "first.jsonl" in first and "second.jsonl" in second

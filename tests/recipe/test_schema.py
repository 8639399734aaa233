from collections.abc import Callable

from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.schema import Recipe

TASKS = {
    "tasks": {
        "one": {"objective": "classification", "loss": {"focal_gamma": 2.0}},
        "two": {"objective": "masked", "ratio": 2.0},
    },
    "data.train": [
        {"path": "a.jsonl", "task": "one", "label": "label"},
        {"path": "b.jsonl", "task": "two"},
        {"path": "c.jsonl", "task": "two"},
    ],
    "model": {"kind": "encoder"},
    "tokenizer": {"from": "tokenizer.json"},
}


def test_a_recipe_without_tasks_is_its_own_only_task(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    assert recipe.by_task() == {"": recipe}
    assert recipe.kind == TRAINING_KINDS["causal"]


def test_each_task_has_its_sources_its_kind_and_its_loss(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(TASKS)
    parts = recipe.by_task()
    assert {name: part.kind.name for name, part in parts.items()} == {
        "one": "classification",
        "two": "masked",
    }
    assert {name: len(part.data.train) for name, part in parts.items()} == {"one": 1, "two": 2}
    assert parts["one"].loss.focal_gamma == 2.0
    assert parts["two"].is_loss_plain
    assert not recipe.is_loss_plain
    assert not parts["one"].tasks

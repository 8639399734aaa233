"""Changes in the text of a recipe: values as asked, the rest as it was."""

import tomllib

import pytest

from etude.errors import RecipeError
from etude.recipe.edit import edit

TEXT = '# mine\nname = "a"   # the name\n\n[optim]\nlearning_rate = 0.02   # fast\n\n[[data.train]]\npath = "x.jsonl"\n'


def test_keys_are_set_where_they_stand_or_added() -> None:
    changes = {
        "optim.learning_rate": 0.006,
        "train.steps": 5,
        "data.train.0.path": "/x",
        "optim.weight_decay": 0.1,
    }
    edited = edit(TEXT, changes, {"optim.learning_rate": "was 0.02: it\nbroke"}, "Second.\nBy hand.")
    assert edited.startswith("# Second.\n# By hand.\n# mine\n") and "# the name" in edited
    assert "learning_rate = 0.006 # was 0.02: it broke" in edited
    assert tomllib.loads(edited) == {
        "name": "a", "optim": {"learning_rate": 0.006, "weight_decay": 0.1},
        "data": {"train": [{"path": "/x"}]}, "train": {"steps": 5},
    }  # fmt: skip


def test_entries_of_lists_and_sections_by_name_are_added_and_taken_out() -> None:
    changes = {
        "data.train.1.path": "y", "data.train.1.format": "text", "data.test.0.path": "z", "notify.0.kind": "slack",
        "tasks.a.objective": "masked", "tasks.a.loss.focal_gamma": 1.0, "loss.class_weights.0": 2.0,
    }  # fmt: skip
    edited = edit(TEXT, changes, {})
    assert tomllib.loads(edited) == {
        "name": "a", "optim": {"learning_rate": 0.02}, "notify": [{"kind": "slack"}],
        "data": {"train": [{"path": "x.jsonl"}, {"path": "y", "format": "text"}], "test": [{"path": "z"}]},
        "tasks": {"a": {"objective": "masked", "loss": {"focal_gamma": 1.0}}},
        "loss": {"class_weights": {"0": 2.0}},
    }  # fmt: skip
    taken = tomllib.loads(edit(edited, {"data.train.0": None, "tasks.a": None}, {}))
    assert taken["data"]["train"] == [{"path": "y", "format": "text"}] and taken.get("tasks", {}) == {}
    inline = edit('[data]\ntrain = [{path = "x"}]\n', {"data.train.1.path": "y"}, {})
    assert tomllib.loads(inline)["data"]["train"] == [{"path": "x"}, {"path": "y"}]
    for key in ("data.train.3.path", "data.train.x.path", "name.0", "data.train.7"):
        with pytest.raises((LookupError, ValueError, TypeError, AttributeError)):
            edit(TEXT, {key: "w"}, {})


def test_reasons_cannot_break_out_of_their_comment() -> None:
    edited = edit(
        TEXT,
        {"optim.learning_rate": 1.0},
        {"optim.learning_rate": 'x\nname = "evil"\r\x0b# y'},
        "a\nb = 1\x00",
    )
    assert tomllib.loads(edited) == {**tomllib.loads(TEXT), "optim": {"learning_rate": 1.0}}


def test_what_is_no_recipe_is_refused() -> None:
    with pytest.raises(RecipeError):
        edit("name = ", {"name": "b"}, {})


@pytest.mark.parametrize("key", ["deduplicate", "validation_ratio"])
def test_keys_of_a_section_that_stands_in_parts_are_set_with_their_reasons(key: str) -> None:
    text = '[[data.train]]\npath = "x"\n[optim]\nlearning_rate = 1\n[data]\nvalidation_ratio = 0.1  # mine\n[train]\nsteps = 3\n'
    edited = edit(text, {f"data.{key}": "near"}, {f"data.{key}": "copies"})
    wanted = tomllib.loads(text)
    wanted["data"][key] = "near"
    assert tomllib.loads(edited) == wanted
    assert f'{key} = "near"' in edited and "# copies" in edited

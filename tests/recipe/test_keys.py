"""Keys by their dotted names, against the schema and what each section takes."""

import pytest

from etude.errors import RecipeError
from etude.recipe.keys import _MEANT, near_keys, recipe_keys, value_choices
from etude.recipe.load import change, flatten, recipe_from
from etude.recipe.schema import Recipe

DATA = {
    "name": "a",
    "data": {"train": [{"path": "a.jsonl"}]},
    "train": {"steps": 1, "global_batch_size": 1},
}


def test_keys_are_those_of_a_recipe_written_out() -> None:
    data = DATA | {"adapter": {}, "model": {"from": "m"}}
    known = flatten(recipe_from(data).to_dict())
    free = {key for key in known if key.startswith("loss.token_weights")}
    assert set(known) - free - {"tasks", "criteria", "notify", "data.validation", "data.test"} <= set(
        recipe_keys()
    )
    assert "tasks" not in recipe_keys() and "data.train.0.path" in recipe_keys()


@pytest.mark.parametrize(
    ("section", "name", "meant"),
    [
        ("optim", "lr", ["optim.learning_rate"]),
        ("train", "learning_rate", ["optim.learning_rate"]),
        ("train", "batch_size", ["train.global_batch_size"]),
        ("train", "seq_lenn", ["train.seq_len"]),
        ("", "epochs", ["train.epochs"]),
        ("", "every_steps", ["evaluate.every_steps", "checkpoint.every_steps"]),
        ("model", "path", ["model.from"]),
        ("model", "zzz", []),
    ],
)
def test_a_name_leads_to_the_key_that_was_meant(section: str, name: str, meant: list[str]) -> None:
    known = [key.removeprefix(f"{section}.") for key in recipe_keys() if key.startswith(f"{section}.")]
    assert near_keys(section, name, known) == meant


def test_an_unknown_section_leads_to_a_section() -> None:
    sections = list(Recipe.model_fields)
    assert near_keys("", "optimizer", sections, is_section=True) == ["optim"]
    assert near_keys("", "lora", sections, is_section=True) == ["adapter"]
    assert near_keys("", "optimizer", sections) == ["optim.kind"]


def test_names_of_other_tools_lead_to_keys_and_sections_and_are_none_themselves() -> None:
    keys = recipe_keys()
    assert {key for key in _MEANT.values() if key not in keys} == {"adapter"}
    assert not {name for name in _MEANT if "." not in name} & {key.rpartition(".")[2] for key in keys}


def test_the_choices_of_a_key_are_what_it_takes() -> None:
    taken = 0
    for key, field in recipe_keys().items():
        for word in value_choices(field):
            value: object = {"true": True, "false": False}.get(word, word)
            value = [value] if key == "records.trackers" else value
            try:
                recipe_from(change(DATA, {key: value}))
            except RecipeError as error:  # a rule on what goes with what, never on the word itself
                assert f"{key} (recipe) is " not in str(error) or "it must be" not in str(error), error
            taken += 1
    assert taken > 60 and value_choices(recipe_keys()["optim.kind"]) == ["adamw", "adam", "muon"]

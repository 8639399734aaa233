import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError, RecipeError
from etude.recipe.load import (
    change,
    diff,
    flatten,
    load_recipe,
    recipe_from,
    recipe_hash,
    to_toml,
    with_changes,
)
from etude.recipe.schema import Recipe
from tests import recipes
from tests.recipes import tiny

GOOD = f"{recipes.GOOD}[optim]\nlearning_rate = 1e-3\n"


def load(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def test_a_good_recipe_loads_with_absolute_paths_and_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert recipe.data.train[0].path == str(tmp_path / "corpus.jsonl")
    assert recipe.optim.learning_rate == 1e-3
    assert recipe.schedule.kind == "cosine"


def test_every_problem_is_named_at_once_with_its_line_and_a_remedy(tmp_path: Path) -> None:
    text = GOOD.replace("1e-3", "-1").replace("steps = 10", "steps = 0\nseq_lenn = 64")
    assert problems(tmp_path, text) == [
        "train.steps (recipe.toml:7) is 0; it must be above 0; try 1000",
        "train.seq_lenn (recipe.toml:8) is not a key of a recipe; did you mean seq_len?",
        "optim.learning_rate (recipe.toml:11) is -1; it must be above 0; try 0.0002",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seed = -1", "at least 0"),
        ("seed = 1.5", "whole number"),
        ('seed = "1"', "whole number"),
        ("seed = true", "whole number"),
        ("seed = 1e400", "whole number"),
        ("train = 3", "must be a [section]"),
        ("adaptor = {}", "did you mean adapter"),
    ],
)
def test_wrong_top_level_values_are_refused(tmp_path: Path, line: str, says: str) -> None:
    text = (
        line
        + "\n"
        + (GOOD.replace("[train]\nsteps = 10\nglobal_batch_size = 8\n", "") if "train =" in line else GOOD)
    )
    assert any(says in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "also", "says"),
    [
        (
            "train_vocab_size = 300",
            'eos_token = "<nope>"',
            "tokenizer.eos_token (recipe.toml:4) is for a given tokenizer",
        ),
        ('path = "corpus.jsonl"', 'format = "alpaca"\nlabel = "label"', "has format beside label or target"),
        (
            'path = "corpus.jsonl"',
            'format = "alpaca"\ntarget = "target"',
            "has format beside label or target",
        ),
        (
            "[optim]",
            '[data.clean]\nundecodable = "warn"',
            "undecodable (recipe.toml:10) is \"warn\"; it must be 'off' or 'drop'",
        ),
    ],
)
def test_settings_that_would_change_nothing_are_refused(
    tmp_path: Path, line: str, also: str, says: str
) -> None:
    both = f"{also}\n{line}" if line == "[optim]" else f"{line}\n{also}"
    assert any(says in problem for problem in problems(tmp_path, GOOD.replace(line, both)))


@pytest.mark.parametrize("line", ['path = "corpus.jsonl"', "train_vocab_size = 300"])
def test_the_home_of_a_user_that_is_not_there_is_one_line(tmp_path: Path, line: str) -> None:
    key = line.replace("train_vocab_size", "from").partition(" ")[0]
    with pytest.raises(
        InputError, match="~nosuchuser/x: this machine has no home of such a user; give the whole path"
    ):
        load(tmp_path, GOOD.replace(line, f'{key} = "~nosuchuser/x"'))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0.0", "-1.0"])
def test_numbers_that_are_no_learning_rate_are_refused(tmp_path: Path, value: str) -> None:
    (problem,) = problems(tmp_path, GOOD.replace("1e-3", value))
    assert problem.startswith("optim.learning_rate (recipe.toml:10)")


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "../x", "a\\u0000b", "A", "<script>", "x" * 65, ".hidden", "new\\nline", "con "]
)
def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, GOOD.replace('"good"', f'"{name}"'))
    assert "name (recipe.toml:1)" in problem and "1 to 64 lower case" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the recipe is empty"),
        ("# only a comment", "the recipe is empty"),
        ("name = ", "recipe.toml:1: not valid TOML"),
        (GOOD + "[optim]\neps = 1e-8", "given twice"),
        ('name = "a"\nname = "b"', "recipe.toml:2: not valid TOML"),
        ("a = " + "[" * 3000, "nested too deeply"),
        ("seed = " + "1" * 5000, "not valid TOML"),
        ("\tname = 'x'\n\tname = 'y'", "given twice"),
    ],
)
def test_text_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    assert says in problems(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe\x00n", "not UTF-8"), (b"\x00" * (1 << 21), "over 1 MiB"), (None, "does not exist")],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_recipe(path)


def test_a_folder_whose_name_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "latin-\udce9"
    folder.mkdir()
    (folder / "recipe.toml").write_text(GOOD)
    with pytest.raises(InputError, match=r"latin-.* has a name that is not UTF-8; give it another"):
        load_recipe(folder / "recipe.toml")


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_recipe(path).name == "good"


def test_overrides_change_values_and_are_blamed_by_name(tmp_path: Path) -> None:
    recipe = load(
        tmp_path, GOOD, "optim.learning_rate=2e-4", "data.train.0.path=other.txt", "records.tags=['a']"
    )
    assert (recipe.optim.learning_rate, recipe.records.tags) == (2e-4, ["a"])
    assert problems(tmp_path, GOOD, "optim.rho=1") == [
        "optim.rho (override) is not a key of a recipe; known here: "
        "kind, learning_rate, weight_decay, beta1, beta2, eps, momentum, matrix_rate_ratio"
    ]
    assert "not of the form key=value" in problems(tmp_path, GOOD, "optim.learning_rate")[0]
    assert "no number 5" in problems(tmp_path, GOOD, "data.train.5.path=x")[0]


def test_a_recipe_survives_toml_and_keeps_its_hash(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({"evaluate.prompts": ['say "\\n"']})
    path = tmp_path / "again.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe_hash(load_recipe(path)) == recipe_hash(recipe)


def test_the_hash_of_a_recipe_stays_when_etude_gets_a_new_key() -> None:
    recipe = recipe_from(tiny(Path("/corpus.jsonl")))
    assert recipe_hash(recipe) == "14af62bf1a1f3edd3c2919c8a9e6c50c51c64e400270f6066a63dbc794504183", (
        "a new key belongs into _LATER"
    )
    assert recipe_hash(with_changes(recipe, {"optim.matrix_rate_ratio": 0.3})) != recipe_hash(recipe)


def test_the_hash_ignores_order_and_comments_but_no_value(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    moved = "\n".join([lines[0], "# a comment", *lines[8:], *lines[1:8]])
    assert recipe_hash(load(tmp_path, GOOD)) == recipe_hash(load(tmp_path, moved))
    assert recipe_hash(load(tmp_path, GOOD)) != recipe_hash(load(tmp_path, GOOD, "seed=18"))


def test_with_changes_checks_again_and_diff_names_the_keys(make_recipe: Callable[..., Recipe]) -> None:
    before = make_recipe()
    after = with_changes(before, {"optim.learning_rate": 1e-4, "train.compile": True})
    assert diff(before, after) == {"optim.learning_rate": (3e-3, 1e-4), "train.compile": (False, True)}
    with pytest.raises(RecipeError):
        with_changes(before, {"optim.learning_rate": math.nan})


def test_clipping_that_is_off_stays_off_in_changed_recipes_and_in_toml(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({"train.max_grad_norm": None})
    assert recipe.train.max_grad_norm is None
    assert with_changes(recipe, {"seed": 2}).train.max_grad_norm is None
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path / "recipe.toml") == recipe
    assert load_recipe(tmp_path / "recipe.toml", ["train.max_grad_norm=none"]) == recipe


@given(
    st.recursive(
        st.integers() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, min_size=1),
    )
)
def test_flatten_and_change_are_inverse(value: Any) -> None:
    if isinstance(value, dict):
        assert change({}, flatten(value)) == value


def test_recipe_from_plain_values_needs_no_file(make_recipe: Callable[..., Recipe]) -> None:
    assert recipe_from(make_recipe().to_dict()) == make_recipe()

"""Recipes that nobody means: every one is either a recipe, or told in lines that name key and place."""

import datetime
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from etude.errors import InputError, RecipeError
from etude.recipe.load import change, load_recipe, recipe_from
from etude.recipe.schema import Recipe

GOOD: dict[str, Any] = {
    "name": "good", "tokenizer": {"train_vocab_size": 300}, "data": {"train": [{"path": "corpus.jsonl"}]},
    "train": {"steps": 10, "global_batch_size": 8}, "tasks": {},
}  # fmt: skip
TASK = {"objective": "masked"}
ODD: list[Any] = [
    10**30, -(10**30), 10**400, 2**63, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"), -1,
    0, 0.5, True, "x", "", [], {}, [[]], [{}], {"a": 1}, datetime.date(2020, 1, 1), datetime.time(1, 2),
]  # fmt: skip


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all keys of the schema, one source and one task among them."""
    found = []
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        parts = [field.annotation, *get_args(field.annotation)]
        parts += [inner for part in parts for inner in get_args(part)]
        inner = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
        middle = {list: ".0", dict: ".one"}.get(get_origin(field.annotation) or type, "")
        found += [key] if inner is None else [key, *keys_of(inner, f"{key}{middle}.")]
    return found


KEYS = [key for key in keys_of(Recipe) if not key.startswith("data.validation.")]


def place_of(text: str, key: str) -> int:
    """The line of a key in a file as tomlkit writes it."""
    *tables, last = key.split(".")
    header = ".".join(part for part in tables if not part.isdigit())
    table, lines = "", text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith("["):
            table = line.strip("[]")
            if table == key:
                return number
        elif table == header and line.startswith(f"{last} = "):
            return number
    return 0


@pytest.mark.parametrize("key", KEYS)
def test_an_odd_value_is_taken_or_told_with_its_key_and_line(key: str, tmp_path: Path) -> None:
    base = change(GOOD, {"tasks.one": TASK} if key.startswith("tasks.one") else {})
    for section in ("adapter", "data.test"):
        if key.startswith(f"{section}."):
            base = change(base, {section: {} if section == "adapter" else [{"path": "x"}]})
    for value in ODD:
        values = change(base, {key: value})
        text = tomlkit.dumps(values)
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        try:
            load_recipe(path)
        except RecipeError as error:
            assert all(len(problem) <= 300 and problem.isprintable() for problem in error.problems)
            line = place_of(text, key)
            blamed = [problem for problem in error.problems if problem.startswith(f"{key} (recipe.toml")]
            if line and not key.startswith("tasks.one"):  # whose source is missing
                within = rf"{re.escape(key)}[.0-9a-z_]* \(recipe.toml:{line}\)"
                others = [problem for problem in error.problems if "(recipe.toml" in problem]
                assert any(re.match(within, p) for p in error.problems) or (not blamed and others), (
                    error.problems
                )
        except InputError as error:  # a path that is none
            assert "\n" not in str(error)


STRANGE = {
    "deep dotted key": "a" + ".a" * 100_000 + " = 1",
    "deep dotted header": "[a" + ".a" * 100_000 + "]\nb = 1",
    "deep quoted key": '"a"' + ".'b'" * 100_000 + " = 1",
    "deep key in an inline table": "x = {a" + ".a" * 100_000 + " = 1}",
    "deep arrays": "a = " + "[" * 100_000 + "]" * 100_000,
    "deep arrays left open": "a = " + "[" * 400_000,
    "deep inline tables": "a = " + "{a = " * 10_000 + "1" + "}" * 10_000,
    "long word": "a" * 1_000_000,
    "long key": "a" * 500_000 + " = 1",
    "long quoted key": '"' + "a" * 500_000 + '" = 1',
    "long string": 'name = "' + "a" * 1_000_000 + '"',
    "long line of brackets": "[" + " " * 1_000_000,
    "long white space": " " * 1_000_000 + "x",
    "quotes left open": '"""\\"' * 200_000,
    "many keys": "\n".join(f"k{i} = 1" for i in range(40_000)),
    "many sections": "\n".join(f"[s{i}]" for i in range(40_000)),
    "many equal sections": "[[s]]\n" * 40_000,
    "long integer": "seed = " + "9" * 900_000,
    "long float": "seed = " + "9" * 900_000 + ".0",
    "long exponent": "seed = 1e" + "9" * 1_000,
    "section int": "[int]\na = 1",
    "section str within optim": "[optim.str]\na = 1",
    "quoted brackets": '["a[0]"]\nx = 1',
    "quoted key with a dot": '"a.b" = 1',
    "key with a NUL": '"a\\u0000b" = 1',
    "key with a line end": '"a\\nerror: b" = 1',
    "key with an escape": '"a\\u001b[2J" = 1',
    "key with braces": '"{0}" = 1\n[train]\n"{x}" = 1',
    "empty key": '"" = 1',
    "value with braces": 'name = "{0}"',
    "array for a section": "[[optim]]\n[[train]]\n[[data]]",
    "value for a section": "optim = 1\ntrain = 2\nmodel = 3",
    "only a byte order mark": "\ufeff",
    "two byte order marks": "\ufeff\ufeffname = 'a'",
    "carriage returns": "name = 'a'\rseed = 1\r",
    "separators": "name = 'a'\u2028seed = 1\x0b\x0c\x85",
    "local time": "seed = 12:00:00\nname = 2020-01-01",
    "NULs": "name\0 = 1",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_text_is_refused_in_short_lines(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(STRANGE[name].encode()[: 1 << 20])
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert 1 <= len(caught.value.problems) <= 101
    assert all(len(problem) <= 300 and problem.isprintable() for problem in caught.value.problems), (
        caught.value
    )
    assert all("recipe.toml" in problem for problem in caught.value.problems)


WORDS = [
    "name", "=", "'a'", '"', "'", "\n", "[", "]", "{", "}", ".", ",", "train", "steps", "1", "#", "\\", " ",
    '"' * 3, "'" * 3, "data", "[[data.train]]\n", "int", "\r\n", "optim.kind", "nan", "é", "\0",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_no_text_is_a_crash(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes("".join(words).encode())
    try:
        load_recipe(path)
    except InputError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    ["x", "=", "=1", "a..b=1", ".a=1", "a.=1", "a b=1", "a" + ".a" * 100_000 + "=1", "\0=1", "a[0]=1", '"a"=1', "é=1",
     "", "a=1\n[train]"],
)  # fmt: skip
def test_a_strange_override_is_one_short_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomlkit.dumps(GOOD))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [text])
    (problem,) = caught.value.problems
    assert len(problem) <= 300 and problem.isprintable()


@pytest.mark.parametrize(
    "override",
    ["data.train.99999999999999999999.path=x", "data.train." + "9" * 5000 + ".path=x", "data.train.x.path=y",
     "name.x=1", "seed=" + "9" * 5000, "seed=" + "[" * 100_000, "optim={}x", "optim=[]",
     "train.steps=1e400", "seed=2020-01-01"],
)  # fmt: skip
def test_an_override_that_leads_nowhere_is_one_short_line(override: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomlkit.dumps(GOOD))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert all(len(problem) <= 300 and problem.isprintable() for problem in caught.value.problems)


def test_what_follows_a_value_in_an_override_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomlkit.dumps(GOOD))
    assert load_recipe(path, ["records.title=1\nx = 2"]).records.title == "1\nx = 2"


def test_a_date_is_no_text() -> None:
    with pytest.raises(RecipeError, match=r"name \(recipe\) is 2020-01-01; it must be"):
        recipe_from(change(GOOD, {"name": datetime.date(2020, 1, 1)}))


def test_lines_within_strings_and_lists_are_no_keys(tmp_path: Path) -> None:
    text = '''name = "good"
[tokenizer]
train_vocab_size = 300
[evaluate]
prompts = ["""
[train]
steps = 0
""",
  "seed = 1", # steps = 7
]
[[data.train]]
path = "a"
[[data.train]]
"path" = "b"
"fie\\u006cd" = 3
[train]
steps = 0
global_batch_size = 8
'''
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.problems == [
        'data.train.1.field (recipe.toml:15) is 3; it must be a text in quotes; try "text"',
        "train.steps (recipe.toml:17) is 0; it must be above 0; try 1000",
    ]

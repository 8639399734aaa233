import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import RecipeError
from etude.recipe.toml import Locator, count_parts, dump, parse, parse_override

TEXT = '''name = "a"
[train]
steps = 3 # seq_len = 9
[[data.train]]
path = """
seq_len = 4
"""
[[data.train]]
clean.minified = "drop"
tags = [
  "steps = 5",
]
weight = 2
'''


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("name", 1), ("train.steps", 3), ("train.seq_len", 2), ("data.train.0.path", 5), ("data.train.1", 8),
        ("data.train.1.clean.minified", 9), ("data.train.1.weight", 13), ("data.train.1.seq_len", 8),
    ],
)  # fmt: skip
def test_a_key_has_the_line_of_its_own_or_of_the_nearest_place_around_it(keys: str, line: int) -> None:
    assert Locator(TEXT, "r.toml", {}).name(tuple(keys.split("."))) == f"{keys} (r.toml:{line})"


def test_a_key_of_the_command_line_is_no_line_of_the_file() -> None:
    assert Locator(TEXT, "r.toml", {"train": {}}).name(("train", "steps")) == "train.steps (override)"


@pytest.mark.parametrize("value", [3, 0.5, True, "text", [1, 2], "a = b", '"quoted"'])
def test_an_override_is_the_value_that_toml_says(value: object) -> None:
    assert parse_override(f"a.b={json.dumps(value)}") == ("a.b", value)


def test_an_override_that_is_no_toml_is_a_text() -> None:
    assert parse_override("name=my-run") == ("name", "my-run")


LONG = {
    "sections": "".join(f"[t{number}]\n" for number in range(100_000)), "lists": "[[a]]\n" * 100_000,
    "keys": "".join(f"k{number}=1\n" for number in range(100_000)),
    "numbers": f"a=[{'1,' * 100_000}]", "texts": "a=[" + '"b",' * 100_000 + "]", "lines": "\n" * 100_000,
    "comments": "#\n" * 100_000, "lines of a text": 'a="""' + "b\n" * 100_000 + '"""', 
    "inline": f"a={{{'a=1,' * 100_000}}}", "empty": f"a=[{'[],' * 100_000}]",
}  # fmt: skip


@pytest.mark.parametrize("kind", LONG)
def test_a_text_of_very_many_parts_of_any_kind_is_refused_in_words_before_it_is_parsed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomllib.loads", None)
    with pytest.raises(RecipeError, match="over 20,000 lines, keys and values; a recipe is a short file"):
        parse(LONG[kind], "r.toml")


def test_a_long_text_counts_as_one_part() -> None:
    assert count_parts('a = "' + "b = 1, [c.d] # " * 10_000 + '"') == 1


@pytest.mark.parametrize(("text", "says"), [("a = [" * 40, "nested too deeply"), ("", "is empty")])
def test_text_beyond_the_limits_is_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        parse(text, "r.toml")


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_SINGLE = _TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
_TABLES = st.recursive(
    st.dictionaries(_TEXTS, _SINGLE | st.lists(_SINGLE, max_size=2), max_size=3),
    lambda inner: st.dictionaries(
        _TEXTS, _SINGLE | inner | st.lists(inner | _SINGLE, max_size=2), max_size=3
    ),
    max_leaves=6,
)


@given(_TABLES)
def test_what_is_written_is_read_again(values: dict[str, Any]) -> None:
    assert tomllib.loads(dump(values)) == values


def test_sections_stand_below_single_values() -> None:
    values = {"a": {"b": {"c": 1}}, "list": [{"x": "é\x7f"}, {}], "last": [1.5, True]}
    text = 'last = [1.5, true]\n\n[a]\n\n[a.b]\nc = 1\n\n[[list]]\nx = "é\\u007f"\n\n[[list]]\n'
    assert dump(values) == text
    with pytest.raises(TypeError, match="TOML has no NoneType"):
        dump({"a": None})

"""A value fits a kind if it has the types of that kind all the way down, and is refused in a few words else."""

import math
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.records.shape import Object, at_least, fit, matching, one_of

PERSON = Object({"name": str}, {"age": (int, None), "parts": [Object({"size": float})]})
DEEP: list[Any] = []
for _ in range(30):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, 3), (2.5, float, 2.5), (3, float, 3), ("x", str, "x"), (False, bool, False), (None, None, None),
        ("inf", float, math.inf), ("-inf", float, -math.inf), ([1, 2], list[int], [1, 2]),
        ({"a": "inf"}, dict[str, float], {"a": math.inf}), (None, int | None, None), ("x", (int, str), "x"),
        ({"name": "a", "age": None, "other": [1]}, PERSON, {"name": "a", "age": None, "other": [1]}),
        ({"name": "a", "parts": [{"size": "-inf"}]}, PERSON, {"name": "a", "parts": [{"size": -math.inf}]}),
        (2, Annotated[int, at_least(2, 3)], 2), ("b", Annotated[str, one_of("a", "b")], "b"),
        (2, Annotated[int, at_least(1), float, str], "2.0"),  # checks and conversions in their order
    ],
)  # fmt: skip
def test_a_value_of_a_kind_is_taken(value: Any, kind: Any, expected: Any) -> None:
    assert fit(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        (True, int, "True is no whole number"), (-1, int, "-1 is no whole number from 0 on"),
        (2**63, int, "is no whole number"), (1.0, int, "1.0 is no whole number"), ("1", float, "'1' is no number"),
        (True, float, "True is no number"), (1, bool, "1 is not true or false"), (None, str, "None is not a text"),
        ([1, "x"], list[int], "'x' is no whole number"), ({}, list[int], "is no list"), ([], dict[str, int], "no object"),
        ({"a": {"b": 1}}, dict[str, dict[str, str]], "a: b: 1 is not a text"), ({}, PERSON, "it has no name"),
        ({"name": "a", "parts": [{"size": "big"}]}, PERSON, "parts: size: 'big' is no number"),
        ({"name": "a", "other": DEEP}, PERSON, "other: it is nested more than 20 deep"),
        ("nan", Annotated[float, at_least(0)], "nan is no number from 0 on"),
        (4, Annotated[int, at_least(2, 3)], "4 is no number from 2 on to 3"),
        ("c", Annotated[str, one_of("a", "b")], "'c' is none of a, b"),
        ("a\n", Annotated[str, matching("[a-z]")], "does not match"), ("y" * 500, int, "y…"),
    ],
)  # fmt: skip
def test_any_other_value_is_refused_in_a_few_words(value: Any, kind: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("…", ".")) as caught:
        fit(value, kind)
    assert len(str(caught.value)) < 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    ANYTHING, st.sampled_from([int, float, str, bool, list[int], dict[str, float], PERSON, int | None, Any])
)
def test_nothing_else_comes_out_than_goes_in(value: Any, kind: Any) -> None:
    try:
        assert repr(fit(value, kind)) == repr(value)
    except ValueError:
        assert kind is not Any


def test_a_number_that_is_not_finite_is_written_as_text() -> None:
    assert math.isnan(fit("nan", float))

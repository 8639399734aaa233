"""The order of names of labels."""

from hypothesis import given
from hypothesis import strategies as st

from etude.scores.order import sort_key


@given(st.permutations(["10", "9", "-1", "1e2", "0.5", "a", "B", "1x", ""]))
def test_numbers_come_first_by_their_value_and_words_by_their_letters(names: list[str]) -> None:
    assert sorted(names, key=sort_key) == ["-1", "0.5", "9", "10", "1e2", "", "1x", "B", "a"]


def test_names_of_one_value_have_an_order_too() -> None:
    assert sorted(["1.0", "1", "01"], key=sort_key) == ["01", "1", "1.0"]

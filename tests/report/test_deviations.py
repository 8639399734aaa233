"""A text is held against the one that follows: each difference has a place, a kind and both sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.report.deviations import Known, compare_texts, compare_values, kind_of_edit

KNOWN = [
    Known("2.855", "best_validation_loss", 2.85464), Known("2.91", "last_validation_loss", 2.9134),
    Known("2.13", "last_loss", 2.1312),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "follows", "kind"),
    [
        ("loss 2.955 now", "loss 2.855 now", "digit"),
        ("loss 2.86 now", "loss 2.855 now", "rounding"),
        ("loss 2.91 now", "loss 2.855 now", "statistic"),
        ("loss 2.13 now", "loss 2.855 now", "split"),
        ("it took 3 h", "it took 3 min", "unit"),
        ("12.5 points", "12.5 %", "points"),
        ("the last step", "the best step", "statistic"),
        ("training loss 2", "validation loss 2", "split"),
        ("run a-00000a", "run a-00000b", "run"),
        ("it is wonderful", "it is finished", "words"),
    ],
)
def test_the_kind_of_an_edit_is_named(stated: str, follows: str, kind: str) -> None:
    assert kind_of_edit(stated, follows, KNOWN)[0] == kind


def test_the_sentences_that_differ_are_told_with_their_lines() -> None:
    follows = "# A\n\nOne is 1. Two is 2.\n\n| a | 3 |\n\nEnd.\n"
    stated = "# A\n\nOne is 1. Two is 5.\n\nAll is well here.\n\n| a | 4 |\n"
    told = [
        (each.line, each.kind, each.stated, each.follows) for each in compare_texts("r.md", stated, follows)
    ]
    assert told == [
        (3, "digit", "Two is 5.", "Two is 2."), (5, "orphan", "All is well here.", ""), (7, "digit", "4", "3"),
        (8, "missing", "", "End."),
    ]  # fmt: skip


@given(st.text(), st.text())
def test_texts_deviate_where_they_differ_in_words(one: str, two: str) -> None:
    assert list(compare_texts("f", one, one)) == []
    if one.split() != two.split():
        assert list(compare_texts("f", one, two))


def test_very_many_lines_are_one_deviation() -> None:
    (deviation,) = compare_texts("f", "x\n" * 10_000, "y\n" * 10)
    assert "10,001 lines" in deviation.rule or "10,000 lines" in deviation.rule


def test_values_deviate_by_their_paths() -> None:
    found = list(
        compare_values("f", {"a": [1, {"b": 2}], "c": True}, {"a": [1, {"b": 3}], "c": 1, "d": 0}, "r")
    )
    assert [(each.stated, each.follows) for each in found] == [
        ("a[1].b = 2", "a[1].b = 3"), ("c = True", "c = 1"), ("d = None", "d = 0"),
    ]  # fmt: skip

"""Labels of rows: what is read, what is refused, their order, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from etude.data.labels import labelling, lay_over, number_labels, read_label
from etude.data.prepared import prepare
from etude.errors import EtudeError, InputError
from etude.recipe.load import recipe_from
from etude.scores.order import sort_key
from tests.conftest import SHARED


def number(labels: list[Any], held_out: int = 0) -> tuple[list[str], list[list[int]], bool, str]:
    """Names, rows of classes, whether several, and all notes; the last rows are held out."""
    spelled = {json.dumps(label): None for label in labels}
    chosen = np.array([list(spelled).index(json.dumps(label)) for label in labels])
    is_train = np.arange(len(labels)) < len(labels) - held_out
    values = [json.loads(each) for each in spelled]
    found, classes = number_labels(
        values, chosen, is_train, fields="'label'", name_row=lambda row: f"a.jsonl:{row + 1}"
    )
    return list(found.names), classes.tolist(), found.multi, "\n".join(found.notes)


def test_numbers_are_in_the_order_of_their_values() -> None:
    assert number([10, 2, -1, 0, 9])[0] == ["-1", "0", "2", "9", "10"]
    assert number(["10", "2.5", "2", "-0.5"])[0] == ["-0.5", "2", "2.5", "10"]
    assert number(["b", 10, "a", 9])[0] == ["9", "10", "a", "b"]
    assert number([True, False])[0] == ["False", "True"]
    assert number([9007199254740993, 9007199254740992])[0] == ["9007199254740992", "9007199254740993"]
    assert sorted(["nan", "1_0", "inf", "3", "1e1", "٣"], key=sort_key) == [
        "3",
        "1e1",
        "1_0",
        "inf",
        "nan",
        "٣",
    ]


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=4, max_size=20))
def test_vectors_of_0_and_1_are_labels_by_position(rows: list[list[int]]) -> None:
    if len({tuple(row) for row in rows}) < 2:
        return
    names, classes, multi, notes = number(rows)
    assert names == ["0", "1", "2"] and classes == rows
    assert multi == any(sum(row) != 1 for row in rows)
    assert "vectors of 0 and 1, read as labels 0 to 2 by position" in notes
    assert ("a single 1" in notes) == (not multi)


def test_vectors_may_hold_truth_values_or_whole_floats() -> None:
    assert number([[True, False], [False, True]])[:3] == (["0", "1"], [[1, 0], [0, 1]], False)
    assert number([[1.0, 1.0], [0.0, 1.0]])[:3] == (["0", "1"], [[1, 1], [0, 1]], True)


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c", 7, 10])), min_size=3, max_size=20))
def test_sets_of_names_are_those_of_scikit_learn(rows: list[set[Any]]) -> None:
    named = [{str(each) for each in row} for row in rows]
    if len(set().union(*named)) < 2 or len({frozenset(row) for row in named}) < 2:
        return
    names, classes, _, _ = number([list(row) for row in rows])
    assert classes == MultiLabelBinarizer(classes=names).fit_transform(named).tolist()


def test_sets_of_the_numbers_0_and_1_are_told_from_vectors_by_the_whole_source() -> None:
    names, classes, multi, notes = number([[0], [1], [0, 1], []])
    assert (names, classes, multi) == (["0", "1"], [[1, 0], [0, 1], [1, 1], [0, 0]], True)
    assert "read as sets of the labels 0 and 1, not as vectors" in notes
    names, classes, multi, notes = number([[0], [1], [1]])
    assert (names, multi) == (["0", "1"], False) and "every label is a list of one" in notes


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            [[1, 0, 1], [1, 0]],
            r"a.jsonl:1: label is \[1, 0, 1\], which is no set of classes; as a vector of 0 and 1",
        ),
        ([[1, 0, 1], [1, 2, 3]], r"a.jsonl:1: label is \[1, 0, 1\], which is no set"),
        ([[0, 1], [0.0, 1.0, 1.0]], r"a.jsonl:2: label is \[0.0, 1.0, 1.0\], which is no set"),
        ([[1, 1, 0], 2], r"a.jsonl:1: label is \[1, 1, 0\], which is no set"),
        ([["a", "b"], ["b", "a"]], r"all training rows have one label \(a, b\)"),
        ([[0, 0, 0], [0, 0, 0]], r"all training rows have one label \(none\)"),
        (["a", "a"], r"all training rows have one label \(a\)"),
    ],
)
def test_lists_that_are_neither_sets_nor_vectors_are_refused(labels: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        number(labels)
    assert len(str(caught.value)) <= 300


def test_a_held_out_label_that_no_training_row_has_is_refused_by_row() -> None:
    with pytest.raises(
        InputError, match=r"a.jsonl:4 has label 'c', which no training row has; those are a, b"
    ):
        number(["a", "b", "a", "c"], held_out=1)
    many = [f"a long name of a label, the number {index}" for index in range(50)]
    with pytest.raises(InputError, match=r"and 48 more; mend the label") as caught:
        number([*many, "c"], held_out=1)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["bug", "bug ", "Bug", "ok"], '"Bug" (1 rows), "bug" (1 rows), "bug " (1 rows)'),
        ([True, "true", "x"], '"True" (1 rows), "true" (1 rows)'),
        ([True, 1, "1", "true"], '"1" (2 rows), "True" (1 rows), "true" (1 rows)'),
        ([True, 1, "1", "true"], 'label "1" is written as a number in 1 rows and as text in 1 rows'),
        (["caf\u00e9", "cafe\u0301", "x"], '"cafe\\u0301" (1 rows), "caf\\u00e9" (1 rows)'),
        (["ok", "o\u200bk", "x"], '"ok" (1 rows)'),
        (["\uff21", "A", "x"], "(1 rows)"),
        (["1", "01", "1.0"], '"01" (1 rows), "1" (1 rows), "1.0" (1 rows)'),
        (["a", "a\u00a0", "x"], "(1 rows)"),
        ([["Bug", "x"], ["bug"], ["x"]], '"Bug" (1 rows), "bug" (1 rows)'),
    ],
)
def test_labels_that_differ_in_spelling_only_are_named_with_their_rows(labels: list[Any], said: str) -> None:
    notes = number(labels)[3]
    assert said in notes and ("separate" in notes or "and read as one" in notes)


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "NA", "N/A", "<NA>", "nan "])
def test_a_label_that_looks_like_an_empty_cell_is_named_with_its_rows(name: str) -> None:
    says = f'label "{name}" (2 rows) looks like an empty cell as pandas writes it'
    assert says in number(["a", name, "b", name])[3]
    assert says in number([["a"], [name, "a"], ["b"], [name]])[3]


def test_labels_that_are_different_words_are_not_called_alike() -> None:
    assert number(["C", "C++", "C#", "-1", "1", "bug-fix", "bugfix"])[3] == ""
    assert number([[1], [0, 1], [True, "x"]][:2] + [["x"]] * 3)[3].count("separate") == 0


def test_rows_that_alone_make_the_labels_several_are_named() -> None:
    notes = number(["a", "b"] * 40 + [[]])[3]
    assert "labels are lists in 1 rows and single values in 80" in notes
    assert "because 1 of 81 rows do, the first a.jsonl:81" in notes
    assert "name a label twice" in number([["a", "a"], ["b"], ["a", "b"]])[3]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "label is null"),
        (1.5, "label is 1.5; expected a name or whole number"),
        (1.0, r"label is 1.0; .*write 1 \(in pandas: astype\(int\)\)"),
        (-2.0, "label is -2.0; .*write -2 "),
        ([0.0, 2.0], r"label is \[0.0, 2.0\]; .*write \[0, 2\]"),
        (float("nan"), "label is NaN"),
        ({"a": 1}, "label is "),
        (" ", "label is ' '"),
        ([["a"]], "label is "),
        ([None], "label is "),
        ([0.3, 0.7], "label is .*or of 0 and 1"),
        (["a", ""], "label is "),
        ("x" * 257, "has 257 characters; a label has at most 256"),
        ("\x1b[31mred", r"label '\\x1b\[31mred' holds a control character"),
        ("two\nlines", "holds a control character or a line break"),
        ("[1, 0, 1]", "is text that looks like a list; write a JSON list"),
        ("['a', 'b']", "is text that looks like a list"),
        ("0 1 1", "is text that looks like a list"),
        ("0,1", "is text that looks like a list"),
    ],
)
def test_a_row_whose_label_is_none_is_refused_by_line(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^a.jsonl:3: .*{said}") as caught:
        read_label({"label": value}, "label", "a.jsonl:3")
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value", ["[bug]", "[CLS]", "a, b", "10", "**bold** | <b>", "日本", -3, 10**30, True, []]
)
def test_other_labels_are_taken_as_they_are(value: Any) -> None:
    assert read_label({"label": value}, "label", "a.jsonl:3") == value


def test_rows_have_the_same_labels_whatever_the_order_of_a_set_but_not_of_a_vector() -> None:
    assert labelling(["a", "b"]) == labelling(["b", "a"]) != labelling(["a"])
    assert labelling([1, 0]) != labelling([0, 1]) and labelling(1) != labelling("1")


def test_labels_lie_over_the_classes_of_a_model() -> None:
    laid = lay_over(("a", "b"), ("b", "c"), are_named=True)
    assert (laid.names, laid.columns, laid.kept) == (("b", "c", "a"), (2, 0), 2)
    assert lay_over(("a", "b"), (), are_named=True).kept == 0
    same = lay_over(("a", "b"), ("a", "b"), are_named=True)
    assert (same.kept, same.note) == (2, "")
    assert lay_over(("0", "1"), ("LABEL_0", "LABEL_1"), are_named=False).names == ("0", "1")
    assert lay_over(("0", "1"), ("no", "yes"), are_named=True).names == ("no", "yes")
    assert lay_over(("1", "2"), ("no", "yes"), are_named=True).kept == 0
    for names in (("Safe", "vulnerable"), ("Safe", "Vulnerable")):
        assert 'differs "Safe" from "safe"' in lay_over(names, ("vulnerable", "safe"), are_named=True).note


def test_the_second_text_of_a_pair_must_be_there_in_every_row(tmp_path: Path) -> None:
    for second in (None, " ", 7):
        with pytest.raises(
            EtudeError, match=r"train.jsonl:1: 'other', a side of the pair, is missing or empty"
        ):
            rows = [{"text": "a", "label": "x", "other": second}, {"text": "b", "label": "y", "other": "c"}]
            (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            values: dict[str, Any] = {
                "name": "pairs", "model": {"kind": "encoder"}, "tokenizer": {"train_vocab_size": 300},
                "data": {"train": [{"path": str(tmp_path / "train.jsonl"), "label": "label", "pair": "other"}]},
                "train": {"objective": "classification", "steps": 1, "seq_len": 16, "global_batch_size": 4},
            }  # fmt: skip
            prepare(recipe_from(values))


@pytest.mark.skipif(not (SHARED / "cases" / "c51_multihot").is_dir(), reason="the shared inputs are not here")
def test_the_rows_of_a_multi_label_dataset_are_three_labels() -> None:
    lines = (SHARED / "cases" / "c51_multihot" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line)["labels"] for line in lines]
    assert number(rows)[:3] == (["0", "1", "2"], rows, True)

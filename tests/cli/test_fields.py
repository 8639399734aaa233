"""Fields of rows: given ones are there, usual names are found and called guessed, others are asked for."""

from pathlib import Path
from typing import Any

import pytest

from etude.cli.fields import Fields, check_given, find_labelled, find_sides, read_first_rows
from etude.errors import InputError, RecipeError

ROWS = Path("rows.jsonl")


@pytest.mark.parametrize(
    ("row", "given", "found"),
    [
        ({"id": 1, "code": "f", "label": 0}, {}, {"field": "code", "label": "label"}),
        ({"func": "f", "target": 1}, {}, {"field": "func", "label": "target"}),  # Devign's names
        ({"text": "f", "labels": ["a"], "class_name": "X"}, {}, {"field": "text", "label": "labels"}),
        ({"query": "q", "code": "f", "label": 1}, {}, {"field": "query", "pair": "code", "label": "label"}),
        ({"query": "q", "code": "f", "label": 1}, {"field": "code"}, {"field": "code", "label": "label"}),
        (
            {"query": "q", "code": "f", "label": 1}, {"pair": "query"},
            {"field": "code", "pair": "query", "label": "label"},
        ),
        ({"Code": "f", "Label": "x"}, {}, {"field": "Code", "label": "Label"}),
        ({"odd": "f", "label": 1}, {}, {"field": "odd", "label": "label"}),  # the only text
        ({"code": "f", "cwe": "a", "lang": "c"}, {"label": "cwe"}, {"field": "code", "label": "cwe"}),
    ],
)  # fmt: skip
def test_text_and_label_are_found_by_usual_names(
    row: dict[str, Any], given: dict[str, str], found: dict[str, str]
) -> None:
    fields = find_labelled(Fields(given), [row] * 3, ROWS)
    assert fields.values == found and fields.guessed == found.keys() - given.keys()
    assert fields.source(ROWS).label == found["label"]


@pytest.mark.parametrize(
    ("row", "given", "found"),
    [
        ({"source": "a", "target": "b"}, {}, {"field": "source", "target": "target"}),
        ({"buggy": "a", "fixed": "b", "id": 3}, {}, {"field": "buggy", "target": "fixed"}),
        ({"code": "a", "docstring": "b"}, {"target": "docstring"}, {"field": "code", "target": "docstring"}),
        ({"nl": "a", "code": "b"}, {"field": "nl"}, {"field": "nl", "target": "code"}),
        ({"nl": "a", "code": "b"}, {"field": "code", "target": "nl"}, {"field": "code", "target": "nl"}),
    ],
)
def test_source_and_target_are_found_by_usual_names(
    row: dict[str, Any], given: dict[str, str], found: dict[str, str]
) -> None:
    fields = find_sides(Fields(given), [row] * 3, ROWS)
    assert fields is not None and fields.values == found and fields.guessed == found.keys() - given.keys()


def test_what_no_name_tells_is_asked_for_with_the_fields_there_are() -> None:
    with pytest.raises(InputError, match=r"name it with --label FIELD; its fields are: 'code', 'kind'"):
        find_labelled(Fields(), [{"code": "a", "kind": 3}], ROWS)
    with pytest.raises(InputError, match=r"name it with --field FIELD; its fields are: 'one', 'two'"):
        find_labelled(Fields({"label": "label"}), [{"one": "a", "two": "b", "label": 1}], ROWS)
    with pytest.raises(InputError, match="--label FIELD"):  # a text is no label, whatever its name
        find_labelled(Fields(), [{"code": "a", "label": "x" * 300}], ROWS)
    assert find_sides(Fields(), [{"text": "a", "label": 1}], ROWS) is None


def test_each_field_that_the_rows_lack_is_a_problem_with_its_near_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check_given({"label": "lable", "pair": "zzz", "field": "code"}, [{"code": "a", "label": 1}], ROWS)
    near, far = caught.value.problems
    assert "--label: rows.jsonl has no field 'lable'; did you mean 'label'?" in near and "mean" not in far
    (tmp_path / "notes.md").write_text("text")
    assert read_first_rows(tmp_path / "notes.md") == []
    with pytest.raises(RecipeError, match="has texts and no rows"):
        check_given({"label": "label"}, [], tmp_path)

"""What rows hold is found out from the first of them, and a row without it is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.data.sources import describe, read_documents, source_format
from etude.data.turns import is_answer
from etude.errors import InputError
from etude.recipe.schema import Source

ASKED = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE_GPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **settings: Any) -> list[Any]:
    return [document.messages for document in read_documents(Source(path=str(path), **settings))]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "q", "completion": "a"}, "prompt (prompt, completion)"),
        ({"prompt": "q", "response": "a"}, "prompt (prompt, response)"),
        ({"question": "q", "answer": "a"}, "prompt (question, answer)"),
        ({"instruction": "q", "output": "a"}, "alpaca (instruction, input, output)"),
        ({"instruction": "q", "input": "", "output": "a", "text": "q and a"}, "alpaca (instruction, input, output)"),
        ({"instruction": "q", "response": "a"}, "prompt (instruction, response)"),
        ({"messages": ASKED}, "messages (messages)"),
        ({"conversations": SHARE_GPT}, "sharegpt (conversations)"),
        ({"conversations": ASKED}, "messages (conversations)"),
    ],
)
def test_formats_are_found_out_and_said(row: dict[str, Any], found: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row, row)
    assert read(file) == [ASKED, ASKED]
    assert describe(Source(path=str(file)), 2) == f"2 rows of JSONL, {found}"


def test_an_input_follows_its_instruction_and_a_system_field_comes_first(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Add.", "input": None, "output": "3", "system": "S"},
    ]
    first, second = read(write(tmp_path / "a.jsonl", *rows))
    assert first[0] == {"role": "user", "content": "Add.\n\n1, 2"}
    assert second[0] == {"role": "system", "content": "S"} and second[1]["content"] == "Add."


def test_rows_with_text_alone_and_a_named_field_stay_text(tmp_path: Path) -> None:
    row = {"text": "t", "prompt": "q", "completion": "a"}
    file = write(tmp_path / "a.jsonl", row)
    assert str(source_format(Source(path=str(write(tmp_path / "b.jsonl", {"text": "t", "n": 1}))))) == "field text"
    assert read(file) == [ASKED]
    assert read(file, format="text") == [None] and read(file, field="completion") == [None]
    assert [document.text for document in read_documents(Source(path=str(file), field="completion"))] == ["a"]


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ([{"prompt": "q", "completion": "a"}] * 25 + [{"prompt": "q"}], {}, "a.jsonl:26 has no field 'completion'"),
        ([{"prompt": "q", "completion": "a"}, {"text": "t"}] * 2, {}, "a.jsonl:2 has no field 'prompt'"),
        ([{"prompt": "q", "completion": 3}], {"format": "prompt"}, "a.jsonl:1 has a int as field 'completion'"),
        ([{"messages": ASKED}, {"messages": []}], {}, "a.jsonl:2 has no list 'messages'"),
        ([{"messages": ASKED}, {"messages": [{"role": "user"}]}], {}, "a.jsonl:2 has a message 1 without the strings"),
        ([{"messages": [*ASKED, {"role": "assistant", "content": "", "tool_calls": [1]}]}], {"format": "messages"},
         "a.jsonl:1 has tool calls in message 3"),
        ([{"text": "t"}], {"format": "alpaca"}, "a.jsonl:1 has no field 'instruction'"),
        ([{"prompt": "q", "completion": " "}], {}, "no row with an answer"),
        ([{"prompt": "q", "completion": "\ud800"}], {}, "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_row_without_its_format_is_named_in_one_line(
    rows: list[Any], settings: dict[str, str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.jsonl", *rows), **settings)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_format_of_rows_needs_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt has no rows, which format = 'alpaca' needs"):
        read(tmp_path / "a.txt", format="alpaca")


def test_a_capability_comes_from_its_field(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a", **more} for more in ({"capability": "sort"}, {}, {"capability": 3})]
    file = write(tmp_path / "a.jsonl", *rows)
    assert [document.capability for document in read_documents(Source(path=str(file)))] == ["sort", None, "3"]
    assert [document.name for document in read_documents(Source(path=str(file)))][2] == f"{file}:3"


def test_what_stands_beside_question_and_answer_is_read(tmp_path: Path) -> None:
    rows = [
        {"instruction": "And its square?", "output": "49", "history": [["3 + 4?", "7"], ["sure?", "yes"]]},
        {"instruction": "q", "output": "a", "history": [], "system_prompt": "S"},
    ]
    first, second = read(write(tmp_path / "a.jsonl", *rows))
    assert [message["content"] for message in first] == ["3 + 4?", "7", "sure?", "yes", "And its square?", "49"]
    assert [message["role"] for message in first] == ["user", "assistant"] * 3
    assert second[0] == {"role": "system", "content": "S"} and len(second) == 3
    row = {"question": "How many?", "context": "CREATE TABLE head", "answer": "SELECT"}
    file = write(tmp_path / "b.jsonl", row, row)
    assert read(file)[0][0]["content"] == "How many?\n\nCREATE TABLE head"
    assert describe(Source(path=str(file)), 2) == "2 rows of JSONL, prompt (question, answer, context)"
    dolly = {"instruction": "q", "context": "", "response": "a", "category": "qa"}
    assert read(write(tmp_path / "c.jsonl", dolly)) == [ASKED]


def test_a_prompt_and_a_completion_may_be_lists_of_messages(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", {"prompt": ASKED[:1], "completion": ASKED[1:]})) == [ASKED]
    (turns,) = read(write(tmp_path / "a.jsonl", {"prompt": [*ASKED, ASKED[0]], "completion": ASKED[1:]}))
    assert [is_answer(turn) for turn in turns] == [False, False, False, True]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ASKED[1]]},
         "a.jsonl:1 has in message 1 of 'messages' a list of parts as 'content'"),
        ({"conversations": [{"from": "human", "value": ["q"]}]}, "in message 1 of 'conversations' a list of parts"),
        ({"messages": "q"}, "has no list 'messages' with at least one message"),
        ({"messages": ASKED, "tools": [{"name": "f"}]}, "has 'tools', which are not supported"),
        ({"messages": ASKED, "functions": "[{}]"}, "has 'functions', which are not supported"),
        ({"instruction": "q", "output": ["a"]}, "has a list as field 'output'"),
        ({"instruction": "q", "input": float("nan"), "output": "a"}, "has NaN as field 'input'"),
        ({"question": "q", "context": {"a": 1}, "answer": "a"}, "has a dict as field 'context'"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "has in 'history' a turn 1 that is no pair"),
        ({"instruction": "q", "output": "a", "history": "before"}, "has in 'history' a turn 1 that is no pair"),
        ({"prompt": "q", "completion": "a", "system": ["S"]}, "has a list as field 'system'"),
        ({"prompt": "q", "completion": "a", "system": "S", "system_prompt": "T"}, "has different system messages in"),
        ({"messages": [{"role": "system", "content": "S"}, *ASKED], "system": "T"}, "has one system message in"),
        ({"input": "code", "label": 1}, "has no field 'text', which must be a string; set field to one of: 'input'"),
    ],
)  # fmt: skip
def test_where_no_row_fits_the_reason_is_that_of_the_nearest_format(row: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.jsonl", row, row))
    assert says in str(caught.value)


def test_columns_that_nothing_reads_are_known(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a", "id": 1, "score": float("nan"), "input_text": "x", "capability": "c"}
    (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", row))))
    assert document.unread == ("id", "score", "input_text") and document.messages == ASKED
    row = {"text": "t", "label": "x", "repo": "r", "messages": ASKED}
    (document,) = read_documents(Source(path=str(write(tmp_path / "b.jsonl", row)), label="label", group_by="repo"))
    assert document.unread == ("messages",)


@pytest.mark.parametrize(
    ("row", "settings"), [({"group": float("nan")}, {"group_by": "group"}), ({"capability": [float("inf")]}, {})]
)
def test_a_number_that_is_none_is_refused_where_it_is_read(
    row: dict[str, Any], settings: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl:1: field .* holds NaN, Infinity"):
        read(write(tmp_path / "a.jsonl", {"text": "t", **row}), **settings)

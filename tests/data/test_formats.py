"""What rows hold is found out from the first of them, and a row without it is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from etude.data.layout import look_through
from etude.data.rows import NO_VALUES
from etude.data.sources import read_documents
from etude.data.turns import is_answer
from etude.errors import InputError
from etude.recipe.data import Source

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
        (
            {"instruction": "q", "input": "", "output": "a", "text": "q and a"},
            "alpaca (instruction, input, output)",
        ),
        ({"instruction": "q", "response": "a"}, "prompt (instruction, response)"),
        ({"messages": ASKED}, "messages (messages)"),
        ({"conversations": SHARE_GPT}, "sharegpt (conversations)"),
        ({"conversations": ASKED}, "messages (conversations)"),
    ],
)
def test_formats_are_found_out_and_said(row: dict[str, Any], found: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", row, row)
    assert read(file) == [ASKED, ASKED]
    assert look_through(Source(path=str(file))).describe(2) == f"2 rows of JSONL, {found}"


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
    assert (
        str(look_through(Source(path=str(write(tmp_path / "b.jsonl", {"text": "t", "n": 1})))).form)
        == "field text"
    )
    assert read(file) == [ASKED]
    assert read(file, format="text") == [None] and read(file, field="completion") == [None]
    assert [document.text for document in read_documents(Source(path=str(file), field="completion"))] == ["a"]


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ([{"prompt": "q", "completion": "a"}] * 25 + [{"prompt": "q"}], {}, "a.jsonl:26 has no field 'completion'"),
        ([{"prompt": "q", "completion": "a"}, {"text": "t"}] * 2, {}, "a.jsonl:2 has no field 'prompt'"),
        ([{"prompt": "q", "completion": 3}], {"format": "prompt"}, "a.jsonl:1 has a number as field 'completion'"),
        ([{"messages": ASKED}, {"messages": []}], {}, "a.jsonl:2 has no list 'messages'"),
        ([{"messages": ASKED}, {"messages": [{"role": "user"}]}], {}, "no field 'content' in message 1"),
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
    rows = [
        {"prompt": "q", "completion": "a", **more} for more in ({"capability": "sort"}, {}, {"capability": 3})
    ]
    file = write(tmp_path / "a.jsonl", *rows)
    assert [document.capability for document in read_documents(Source(path=str(file)))] == ["sort", None, "3"]
    assert [document.name for document in read_documents(Source(path=str(file)))][2] == f"{file}:3"


def test_what_stands_beside_question_and_answer_is_read(tmp_path: Path) -> None:
    rows = [
        {"instruction": "And its square?", "output": "49", "history": [["3 + 4?", "7"], ["sure?", "yes"]]},
        {"instruction": "q", "output": "a", "history": [], "system_prompt": "S"},
    ]
    first, second = read(write(tmp_path / "a.jsonl", *rows))
    assert [message["content"] for message in first] == [
        "3 + 4?",
        "7",
        "sure?",
        "yes",
        "And its square?",
        "49",
    ]
    assert [message["role"] for message in first] == ["user", "assistant"] * 3
    assert second[0] == {"role": "system", "content": "S"} and len(second) == 3
    row = {"question": "How many?", "context": "CREATE TABLE head", "answer": "SELECT"}
    file = write(tmp_path / "b.jsonl", row, row)
    assert read(file)[0][0]["content"] == "How many?\n\nCREATE TABLE head"
    assert (
        look_through(Source(path=str(file))).describe(2)
        == "2 rows of JSONL, prompt (question, answer, context)"
    )
    dolly = {"instruction": "q", "context": "", "response": "a", "category": "qa"}
    assert read(write(tmp_path / "c.jsonl", dolly)) == [ASKED]


def test_a_prompt_and_a_completion_may_be_lists_of_messages(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", {"prompt": ASKED[:1], "completion": ASKED[1:]})) == [ASKED]
    (turns,) = read(write(tmp_path / "a.jsonl", {"prompt": [*ASKED, ASKED[0]], "completion": ASKED[1:]}))
    assert [is_answer(turn) for turn in turns] == [False, False, False, True]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ASKED[1]]},
         "a.jsonl:1 has a part 'image_url' in message 1 of 'messages', which is not read; only text is"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}, ASKED[1]]},
         "a.jsonl:1 has a number as 'text' of a part in message 1 of 'messages'"),
        ({"conversations": [{"from": "human", "value": ["q"]}]}, "has a string as a part in message 1"),
        ({"messages": [*ASKED, {"role": "user", "content": None}]}, "has null as 'content' in message 3"),
        ({"messages": [*ASKED, "q"]}, "has a string as message 3"),
        ({"messages": "q"}, "has no list 'messages' with at least one message"),
        ({"instruction": ASKED[:1], "input": ["x"], "output": ASKED[1:]}, "has 'input' beside 'instruction' as a list"),
        ({"prompt": ASKED[:1], "completion": ASKED[1:], "history": [["q", "a"]]}, "has 'history' beside 'prompt'"),
        ({"messages": ASKED, "tools": [{"name": "f"}]}, "has 'tools', which are not supported"),
        ({"messages": ASKED, "functions": "[{}]"}, "has 'functions', which are not supported"),
        ({"instruction": "q", "output": ["a"]}, "has a list as field 'output'"),
        ({"instruction": "q", "input": float("nan"), "output": "a"}, "has NaN as field 'input'"),
        ({"question": "q", "context": {"a": 1}, "answer": "a"}, "has an object as field 'context'"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "has in 'history' a turn 1 that is no pair"),
        ({"instruction": "q", "output": "a", "history": [["q", "a"], ASKED[0]]}, "has in 'history' a turn 2 that is"),
        ({"instruction": "q", "output": "a", "history": "before"}, "has in 'history' a turn 1 that is no pair"),
        ({"prompt": "q", "completion": "a", "system": ["S"]}, "has a list as field 'system'"),
        ({"prompt": "q", "completion": "a", "system": "S", "system_prompt": "T"}, "has different system messages in"),
        ({"messages": [{"role": "system", "content": "S"}, *ASKED], "system": "T"}, "has one system message in"),
        ({"label": 1}, "has no field 'text', which must be a string; no field of it is one; give rows that have text"),
        ({"input": "code", "label": 1}, "has no field 'text', which must be a string; set field to one of: 'input'"),
    ],
)  # fmt: skip
def test_where_no_row_fits_the_reason_is_that_of_the_nearest_format(
    row: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.jsonl", row, row))
    assert says in str(caught.value)


def test_columns_that_nothing_reads_are_known(tmp_path: Path) -> None:
    row = {
        "prompt": "q",
        "completion": "a",
        "id": 1,
        "score": float("nan"),
        "input_text": "x",
        "capability": "c",
    }
    (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", row))))
    assert document.unread == ("id", "score", "input_text") and document.messages == ASKED
    row = {"text": "t", "label": "x", "repo": "r", "messages": ASKED}
    (document,) = read_documents(
        Source(path=str(write(tmp_path / "b.jsonl", row)), label="label", group_by="repo")
    )
    assert document.unread == ("messages",)


@pytest.mark.parametrize(
    ("row", "settings"),
    [({"group": float("nan")}, {"group_by": "group"}), ({"capability": [float("inf")]}, {})],
)
def test_a_number_that_is_none_is_refused_where_it_is_read(
    row: dict[str, Any], settings: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl:1: field .* holds NaN, Infinity"):
        read(write(tmp_path / "a.jsonl", {"text": "t", **row}), **settings)


@pytest.mark.parametrize(
    ("role", "is_read_as"),
    [
        ("human", "user"), ("prompter", "user"), ("User ", "user"), ("gpt", "assistant"), ("ai", "assistant"),
        ("AI", "assistant"), ("bot", "assistant"), ("model", "assistant"), ("chatgpt", "assistant"),
        ("bing", "assistant"), ("function_call", "assistant"), ("tool_call", "assistant"),
        ("tool-call", "assistant"), ("observation", "tool"), ("function", "tool"), ("ipython", "tool"),
        ("developer", "developer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["messages", "sharegpt", "lists"])
def test_a_role_by_another_name_is_the_role(role: str, is_read_as: str, form: str, tmp_path: Path) -> None:
    keys = ("from", "value") if form == "sharegpt" else ("role", "content")
    asked = [dict(zip(keys, turn)) for turn in (("user", "q"), (role, "x"))]
    answer = [dict(zip(keys, ("assistant", "a")))]
    row = {"prompt": asked, "completion": answer} if form == "lists" else {"conversations": [*asked, *answer]}
    (turns,) = read(write(tmp_path / "a.jsonl", row))
    assert [turn["role"] for turn in turns] == ["user", is_read_as, "assistant"]


def test_a_call_of_a_tool_is_learnt_as_what_the_model_says(tmp_path: Path) -> None:
    said = [("human", "q"), ("function_call", '{"name": "f"}'), ("observation", "1"), ("gpt", "a")]
    turns = [{"from": role, "value": text} for role, text in said]
    (read_turns,) = read(write(tmp_path / "a.jsonl", {"conversations": turns}))
    assert [is_answer(turn) for turn in read_turns] == [False, True, False, True]


@pytest.mark.parametrize("role", ["critic", "assistant_name", "Alice", "", "thought"])
@pytest.mark.parametrize("form", ["messages", "sharegpt", "lists"])
def test_an_unknown_role_is_refused_by_name(role: str, form: str, tmp_path: Path) -> None:
    keys = ("from", "value") if form == "sharegpt" else ("role", "content")
    odd, good = (
        [dict(zip(keys, (name, "x"))), dict(zip(keys, ("assistant", "a")))] for name in (role, "user")
    )
    rows = [
        {"prompt": turns[:1], "completion": turns[1:]} if form == "lists" else {"conversations": turns}
        for turns in (good, odd)
    ]
    says = rf"a.jsonl:2 has the unknown role '{role}' in message 1; known are system, developer, user, assistant, tool"
    with pytest.raises(InputError, match=says) as caught:
        read(write(tmp_path / "a.jsonl", *rows))
    assert len(str(caught.value)) - len(str(tmp_path)) < 300


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("function_call", {"name": "f", "arguments": "{}"}, r"tool calls in message 2 \('function_call'\)"),
        ("function_call", '{"name": "f"}', r"tool calls in message 2 \('function_call'\)"),
        ("tool_calls", [{"id": "1"}], r"tool calls in message 2 \('tool_calls'\)"),
        ("tools", [{"name": "f"}], r"tool calls in message 2 \('tools'\)"),
        ("images", ["a.png"], "'images' in message 2, which is not read as a list"),
        ("audio", {"id": "1"}, "'audio' in message 2, which is not read as an object"),
        ("thinking", ["so", "what"], "'thinking' in message 2, which is not read as a list"),
        ("reasoning_details", [{"text": "so"}], "'reasoning_details' in message 2"),
    ],
)
def test_a_part_of_a_turn_that_is_no_text_is_refused_by_name(
    field: str, value: Any, says: str, tmp_path: Path
) -> None:
    for content in ("a", None) if "call" in field else ("a",):  # OpenAI writes null beside a call
        turns = [ASKED[0], {"role": "assistant", "content": content, field: value}]
        with pytest.raises(InputError, match=f"a.jsonl:2 has {says}"):
            read(write(tmp_path / "a.jsonl", {"messages": ASKED}, {"messages": turns}))


@pytest.mark.parametrize(
    "value",
    [None, "", [], {}, "[]", "null", {"name": None, "arguments": None}],
    ids=lambda value: f"{value!r}",
)
@pytest.mark.parametrize("field", ["function_call", "tool_calls", "images", "x"])
def test_an_empty_field_of_a_turn_says_nothing(field: str, value: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"messages": [ASKED[0], {**ASKED[1], field: value}]})
    (document,) = read_documents(Source(path=str(file)))
    assert document.unread == () and document.text == "q\n\na"


def test_fields_of_turns_that_hold_no_text_are_named_as_unread(tmp_path: Path) -> None:
    extra = {"id": 3, "ok": False, "header": {"a": "b"}, "weight": 1, "name": "n", "none": None}
    for row in (
        {"messages": [ASKED[0], ASKED[1] | extra]},
        {"prompt": ASKED[:1], "completion": [ASKED[1] | extra]},
    ):
        (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", row))))
        assert document.unread == ("id of messages", "ok of messages", "header of messages")


def test_thoughts_without_an_answer_are_refused(tmp_path: Path) -> None:
    turns = [ASKED[0], {"role": "assistant", "content": " ", "reasoning_content": "so"}]
    with pytest.raises(InputError, match="has 'reasoning_content' in message 2, but no 'content'"):
        read(write(tmp_path / "a.jsonl", {"messages": turns}))


def test_thoughts_are_a_part_of_the_text_that_is_searched_and_compared(tmp_path: Path) -> None:
    turns = [ASKED[0], {**ASKED[1], "reasoning_content": "so", "name": "n"}]
    (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", {"messages": turns}))))
    assert document.text == "q\n\na\n\nso"


@pytest.mark.parametrize(
    ("more", "says"),
    [({"content": "other"}, "'value' and 'content'"), ({"role": "user"}, "'from' and 'role'")],
)
def test_a_turn_with_two_contents_or_roles_is_refused(
    more: dict[str, str], says: str, tmp_path: Path
) -> None:
    turns = [SHARE_GPT[0], SHARE_GPT[1] | more]
    with pytest.raises(InputError, match=f"a.jsonl:1 has in message 2 both {says}, which differ"):
        read(write(tmp_path / "a.jsonl", {"conversations": turns}))
    same = [SHARE_GPT[0], SHARE_GPT[1] | {"content": "a", "role": "assistant"}]
    assert read(write(tmp_path / "a.jsonl", {"conversations": same})) == [ASKED]


def test_cells_of_a_table_that_look_empty_are_known(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "instruction,input,output,id\nnan,,NaN,nan\nq,None,a,1\nnan is,<NA>,not nan,\n"
    )
    rows = read_documents(Source(path=str(tmp_path / "a.csv")))
    assert [set(document.no_values) for document in rows] == [{"instruction", "output"}, {"input"}, {"input"}]
    file = write(
        tmp_path / "a.jsonl", {"prompt": "q", "completion": "None"}
    )  # what a program printed, perhaps
    assert [document.no_values for document in read_documents(Source(path=str(file)))] == [()]


def test_values_that_look_empty_are_those_of_pandas() -> None:
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert (parsers.STR_NA_VALUES - {""}) | {"NaT"} == NO_VALUES


@pytest.mark.parametrize(
    "history",
    [ASKED, SHARE_GPT, [["q", "a"]], [{**ASKED[0], "content": [{"type": "text", "text": "q"}]}, ASKED[1]]],
)
def test_a_history_is_pairs_or_messages(history: Any, tmp_path: Path) -> None:
    row = {"instruction": "r", "output": "b", "history": history}
    turns = [*ASKED, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]
    assert read(write(tmp_path / "a.jsonl", row)) == [turns]


def test_parts_that_are_text_are_joined_as_chat_templates_of_transformers_do(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "def f():"},
        {"type": "text", "text": "\n    pass", "cache_control": {"ttl": 1}},
    ]
    row = {"messages": [{"role": "user", "content": parts}, ASKED[1]]}
    (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", row))))
    template = "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
    expected = render_jinja_template([[row["messages"][0]]], chat_template=template)[0][0]
    assert document.messages == [{"role": "user", "content": expected}, ASKED[1]]
    assert document.unread == ("cache_control of messages",)
    share = {"conversations": [SHARE_GPT[0], {"from": "gpt", "value": [{"text": "a"}]}]}
    assert read(write(tmp_path / "b.jsonl", share)) == [ASKED]
    pair = {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "completion": ASKED[1:]}
    assert read(write(tmp_path / "c.jsonl", pair)) == [ASKED]


def test_the_format_is_named_only_where_it_is_in_doubt(tmp_path: Path) -> None:
    def refusal(*rows: Any, **settings: Any) -> str:
        with pytest.raises(InputError) as caught:
            read(write(tmp_path / "a.jsonl", *rows), **settings)
        assert len(str(caught.value).removeprefix(str(tmp_path))) <= 300
        return str(caught.value)

    marked = {"messages": [ASKED[0], {**ASKED[1], "weight": 0.5}]}
    assert refusal({"messages": ASKED}, marked).endswith("expected 0 or 1, or false or true")
    assert "set format" not in refusal({"messages": ASKED}, {"messages": []})
    assert "set format" not in refusal({"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": 3})
    pair = {"prompt": "q", "completion": "a"}
    for other in ({"text": "t"}, {"prompt": "q"}, {"messages": ASKED}):
        says = (
            "; all rows of a source have one format, here prompt (prompt, completion): mend this row, or "
            "set format"
        )
        assert refusal(pair, pair, other).endswith(says)
    assert "here messages (conversations)" in refusal({"conversations": ASKED}, {"conversations": SHARE_GPT})


def test_rows_whose_answers_are_all_marked_are_refused_with_that_reason(tmp_path: Path) -> None:
    row = {"messages": [ASKED[0], {**ASKED[1], "weight": 0}]}
    with pytest.raises(
        InputError, match=r"no answer to learn: every one .2. is marked as not to be learnt .weight 0"
    ):
        read(write(tmp_path / "a.jsonl", row, row))

"""Turns that are marked as not to be learnt are not scored, and no mark is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.data.page import list_notes
from etude.data.prepared import prepare
from etude.data.sources import read_documents
from etude.data.turns import is_answer
from etude.errors import InputError
from etude.plan import make_plan
from etude.plan.rows import plan_rows
from etude.recipe.data import Source
from etude.recipe.load import change, recipe_from
from tests.bases import CHAT_ML, write_qwen2, write_t5

MARKS_OF_CHAT_ML = CHAT_ML.replace(
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}",
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + "
    "'<|im_end|>' }}{% endif %}{{ '\n' }}",
)


def conversation(first: dict[str, Any], second: dict[str, Any] | None = None, **row: Any) -> dict[str, Any]:
    said = [("user", "q1"), ("assistant", "total"), ("user", "q2"), ("assistant", "value")]
    turns: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in said]
    turns[1] |= first
    turns[3] |= second or {}
    return {"messages": turns, **row}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe_of(base: Path, rows: Path, changes: dict[str, Any] | None = None) -> Any:
    values = {
        "name": "marks",
        "model": {"from": str(base)},
        "data": {"train": [{"path": str(rows)}], "validation": "none"},
        "train": {"epochs": 1, "seq_len": 128, "global_batch_size": 2, "device": "cpu"},
        "optim": {"learning_rate": 1e-3},
        "evaluate": {"answers": 0},
    }
    return recipe_from(change(values, changes or {}))


def learnt(path: Path, **settings: Any) -> list[str]:
    (document,) = read_documents(Source(path=str(path), format="messages", **settings))
    return [message["content"] for message in document.messages or [] if is_answer(message)]


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0}, {"weight": 0.0}, {"weight": False}, {"train": False}, {"training": False},
        {"trainable": False}, {"loss": False}, {"loss": 0}, {"loss_mask": 0}, {"loss_scale": 0.0},
        {"loss_weight": 0}, {"masked": True}, {"masked": 1}, {"weight": 0, "train": False, "loss": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_marked_is_not_learnt(mark: dict[str, Any], tmp_path: Path) -> None:
    assert learnt(write(tmp_path / "a.jsonl", conversation(mark))) == ["value"]


@pytest.mark.parametrize(
    "mark", [{"weight": 1}, {"train": True}, {"masked": False}, {"loss": None}, {}], ids=str
)
def test_an_answer_that_is_marked_to_be_learnt_or_not_marked_is(mark: dict[str, Any], tmp_path: Path) -> None:
    assert learnt(write(tmp_path / "a.jsonl", conversation(mark))) == ["total", "value"]


def test_turns_of_sharegpt_are_marked_in_the_same_way(tmp_path: Path) -> None:
    said = [("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b")]
    turns: list[dict[str, Any]] = [{"from": role, "value": content} for role, content in said]
    turns[1]["train"] = False
    turns[0]["train"] = False  # as Axolotl's data has it, and as is done anyway
    (document,) = read_documents(Source(path=str(write(tmp_path / "a.jsonl", {"conversations": turns}))))
    assert [message["content"] for message in document.messages or [] if is_answer(message)] == ["b"]


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ({"weight": 0.5}, "has weight '0.5' in message 2; expected 0 or 1"),
        ({"weight": "0"}, "has weight '0' in message 2; expected 0 or 1"),
        ({"train": "no"}, "has train 'no' in message 2"),
        ({"loss_mask": [0, 1]}, r"has loss_mask '\[0, 1\]' in message 2"),
        ({"weight": float("1e300")}, "has weight '1e.300' in message 2"),
        ({"weight": -1}, "has weight '-1' in message 2"),
        ({"mask": 1}, "has 'mask' in message 2, which is not read"),
        ({"train_detail": [{"begin_offset": 0}]}, "has 'train_detail' in message 2, which is not read"),
        ({"weight": 1, "train": False}, r"has marks in message 2 that disagree \(weight, train\)"),
        ({"weight": 0, "masked": False}, "has marks in message 2 that disagree"),
    ],
    ids=str,
)
def test_a_mark_that_is_not_read_is_refused_by_name(mark: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"a.jsonl:2 {says}"):
        rows = write(tmp_path / "a.jsonl", conversation({}), conversation(mark))
        list(read_documents(Source(path=str(rows), format="messages")))


@pytest.mark.parametrize("mark", [{"weight": 1}, {"weight": 1.0}, {"weight": 0}, {"loss_weight": 1}], ids=str)
def test_the_default_weight_of_a_question_is_no_mark(mark: dict[str, Any], tmp_path: Path) -> None:
    row = conversation({})
    row["messages"][0] |= mark
    assert learnt(write(tmp_path / "a.jsonl", row)) == ["total", "value"]


@pytest.mark.parametrize("mark", [{"train": True}, {"masked": False}, {"weight": 1, "train": True}], ids=str)
def test_a_question_that_is_marked_to_be_learnt_is_refused(mark: dict[str, Any], tmp_path: Path) -> None:
    row = conversation({})
    row["messages"][0] |= mark
    with pytest.raises(InputError, match=r"a.jsonl:1 marks message 1 as one to learn .*answers_only = false"):
        list(read_documents(Source(path=str(write(tmp_path / "a.jsonl", row)), format="messages")))


@pytest.mark.parametrize(
    "column", [{"train_on_inputs": True}, {"train_on_prompt": True}, {"completion_only_loss": False}], ids=str
)
def test_a_row_that_wants_its_question_learnt_is_refused(column: dict[str, Any], tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", conversation({}, **column))
    with pytest.raises(InputError, match=r"which is not read for a row; set data.answers_only"):
        list(read_documents(Source(path=str(rows), format="messages")))
    opposite = {name: not value for name, value in column.items()}
    assert learnt(write(tmp_path / "a.jsonl", conversation({}, **opposite))) == ["total", "value"]


@pytest.mark.parametrize(
    "template", [CHAT_ML, MARKS_OF_CHAT_ML], ids=["without marks", "with generation marks"]
)
def test_tokens_of_a_marked_answer_are_read_and_not_scored(template: str, tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    rows = write(tmp_path / "a.jsonl", conversation({"weight": 0}), conversation({}))
    corpus = prepare(recipe_of(base, rows), tokenizer_folder=base)
    marked, plain = (corpus.train.sample(index) for index in (0, 1))
    assert marked.tokens.tolist() == plain.tokens.tolist()  # which answers are learnt changes no token
    texts = [corpus.tokenizer.decode(each.labels[each.labels >= 0].tolist()) for each in (marked, plain)]
    assert texts == ["value", "totalvalue"]
    assert corpus.summary["conversations"]["answers_marked_not_to_learn"] == 1
    plan = make_plan(recipe_of(base, rows))
    assert ("conversations", "1 answers are marked as not to be learnt, and are not scored") in plan_rows(
        plan
    )


def test_a_row_without_an_answer_to_learn_is_blank_and_counted(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    rows = write(tmp_path / "a.jsonl", conversation({"weight": 0}, {"weight": 0}), conversation({}))
    (source,) = prepare(recipe_of(base, rows), tokenizer_folder=base).summary["sources"]
    assert (source["blank"], source["blank_rows"]) == (1, [f"{rows}:1"])


def test_marks_are_refused_where_all_of_a_conversation_is_learnt(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    rows = write(tmp_path / "a.jsonl", conversation({"weight": 0}))
    with pytest.raises(
        InputError, match=r"1 answers are marked .* data.answers_only of this recipe learns all"
    ):
        prepare(recipe_of(base, rows, {"data.answers_only": False}), tokenizer_folder=base)


def test_a_marked_last_answer_is_no_target_of_an_encoder_decoder(tmp_path: Path) -> None:
    base, rows = write_t5(tmp_path / "base"), write(tmp_path / "a.jsonl", conversation({}, {"weight": 0}))
    with pytest.raises(InputError, match=r"a.jsonl:1 marks its last answer as not to be learnt"):
        prepare(recipe_of(base, rows, {"train.objective": "seq2seq"}), tokenizer_folder=base)


def test_a_mark_does_not_depend_on_the_template_for_a_place_that_cannot_be_told(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    twice = MARKS_OF_CHAT_ML.replace(
        "{% generation %}", "{% generation %}{{ 'hm<|im_end|>' }}{% endgeneration %}{% generation %}"
    )
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": twice}))
    rows = write(tmp_path / "a.jsonl", conversation({"weight": 0}))
    with pytest.raises(InputError, match=r"marks 4 places by {% generation %} in 2 assistant turns"):
        prepare(recipe_of(base, rows), tokenizer_folder=base)


def test_fields_of_messages_that_nothing_reads_are_counted_by_source(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    first = write(tmp_path / "a.jsonl", conversation({"id": "x", "n": 1}), conversation({"id": "y"}))
    second = write(tmp_path / "b.jsonl", conversation({}, note="z"))
    sources = [{"path": str(first)}, {"path": str(second)}]
    summary = prepare(recipe_of(base, first, {"data.train": sources}), tokenizer_folder=base).summary
    unread = [source["unread_columns"] for source in summary["sources"]]
    assert unread == [["n of messages (1 rows)", "id of messages"], ["note"]]
    assert (
        list_notes(summary)[0]
        == f"{first}: columns that are not read: n of messages (1 rows), id of messages"
    )


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "refusal"])
def test_thoughts_that_would_not_be_learnt_are_refused(field: str, tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", conversation({}), conversation({}, {field: "hm"}))
    base = write_qwen2(tmp_path / "base")
    with pytest.raises(
        InputError, match=rf"a.jsonl:2: the chat template does not write '{field}' of message 4"
    ):
        prepare(recipe_of(base, rows), tokenizer_folder=base)
    with pytest.raises(
        InputError, match=rf"a.jsonl:2: the chat template does not write '{field}' of message 4"
    ):
        prepare(recipe_of(base, rows, {"data.answers_only": False}), tokenizer_folder=base)
    base = write_t5(tmp_path / "t5")
    with pytest.raises(
        InputError, match=rf"a.jsonl:2 has '{field}' in message 4, which an encoder-decoder does not"
    ):
        prepare(recipe_of(base, rows, {"train.objective": "seq2seq"}), tokenizer_folder=base)


def test_other_fields_of_messages_are_named_for_an_encoder_decoder(tmp_path: Path) -> None:
    base, rows = write_t5(tmp_path / "base"), write(tmp_path / "a.jsonl", conversation({"name": "x"}))
    summary = prepare(recipe_of(base, rows, {"train.objective": "seq2seq"}), tokenizer_folder=base).summary
    assert summary["sources"][0]["unread_columns"] == ["name of messages"]


def test_cells_that_look_empty_are_counted_and_said(tmp_path: Path) -> None:
    base, rows = write_qwen2(tmp_path / "base"), tmp_path / "a.csv"
    rows.write_text("instruction,input,output\nq,nan,a\nr,nan,NaN\ns,x,b\n")
    (note,) = list_notes(prepare(recipe_of(base, rows), tokenizer_folder=base).summary)
    assert note.startswith(
        f"{rows}: cells that look empty as pandas writes them (nan, NA, None ...) are read as that"
    )
    assert "input (2 rows), output (1 rows); leave such rows out" in note

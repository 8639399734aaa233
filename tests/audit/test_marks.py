"""Marks of templates in rows are told from code that names them."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.audit.rows import find_in_rows
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from tests import bases, recipes

FORMS = {
    "Llama 2 and Mistral": ("[INST] {} ", "[/INST] {}"),
    "ChatML": ("<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n{}<|im_end|>"),
    "Llama 3": ("<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", "{}<|eot_id|>"),
    "Gemma": ("<start_of_turn>user\n{}<end_of_turn>\n", "<start_of_turn>model\n{}"),
    "Alpaca": ("### Instruction:\n{}\n\n### Response:\n", "{}"),
    "Vicuna": ("USER: {}\n", "ASSISTANT: {}"),
}


def code(number: int) -> str:
    return f"def f_{number}(x):\n    return x * {number * 7919 % 97} + {number}"


def said(folder: Path, rows: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> str:
    path = folder / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_from(recipes.tiny(path, {"train.seq_len": 256, **(changes or {})}))
    found = [
        each for each in find_in_rows(make_plan(recipe).tasks[0]) if each.kind == "template_marks_missing"
    ]
    return "; ".join(f"{each.what}: {each.evidence}" for each in found)


def pairs(form: tuple[str, str], share: float, count: int = 80) -> list[dict[str, Any]]:
    return [
        {"instruction": form[0].format(f"Write f_{n}."), "output": form[1].format(code(n))}
        if n % 10 < 10 * share
        else {"instruction": f"Write f_{n}.", "output": code(n)}
        for n in range(count)
    ]


@pytest.mark.parametrize("share", [1, 0.5, 0.2])
@pytest.mark.parametrize("name", FORMS)
def test_another_template_in_a_share_of_the_rows_is_named(tmp_path: Path, name: str, share: float) -> None:
    found = said(tmp_path, pairs(FORMS[name], share))
    assert f"({name}) stand in" in found
    doubled = "put around the rows twice" in found  # the plain template has the marks of Alpaca
    assert doubled == (name == "Alpaca")


def test_rows_under_the_template_of_the_model_are_well(tmp_path: Path) -> None:
    rows = [{"instruction": f"Write f_{n}.", "output": code(n)} for n in range(60)]
    assert said(tmp_path, rows) == ""
    base = bases.write_qwen2(tmp_path / "base")
    assert said(tmp_path, rows, {"model": {"from": str(base)}, "tokenizer": {}}) == ""
    talks = [
        {"messages": [{"role": role, "content": f"{role} {n}"} for role in ("user", "assistant") * 3]}
        for n in range(60)
    ]
    assert said(tmp_path, talks) == ""


def test_code_that_names_marks_is_no_conversation(tmp_path: Path) -> None:
    rows = [{"instruction": f"Write f_{n}.", "output": code(n)} for n in range(80)]
    rows[3]["output"] = rows[40]["output"] = 'text.replace("[INST]", "").replace("[/INST]", "")'
    assert said(tmp_path, rows) == ""
    one = [{**row, "output": f'{row["output"]}\nstop = "<|im_end|>"'} for row in rows]
    assert said(tmp_path, one) == ""


def test_texts_without_a_template_may_bring_their_own(tmp_path: Path) -> None:
    first, second = FORMS["Alpaca"]
    rows = [{"text": first.format(f"Write f_{n}.") + second.format(code(n))} for n in range(60)]
    assert said(tmp_path, rows, {"data.sample": "document"}) == ""


def test_marks_that_are_tokens_of_the_model_are_missed_in_a_share_too(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path / "base")
    rows = [
        {"text": f"<|im_start|>user\nWrite f_{n}<|im_end|>\n{code(n)}" if n % 5 == 0 else code(n)}
        for n in range(80)
    ]
    found = said(tmp_path, rows, {"model": {"from": str(base)}, "tokenizer": {}})
    assert found.startswith(
        "marks of the chat template are read as text: <|im_start|>, <|im_end|> stand as text in "
    )

"""What is noted of documents on their way to token ids."""

import json
from pathlib import Path

import pytest

from etude.data import encode
from etude.data.encode import cut_text
from etude.data.page import list_notes
from etude.data.prepared import prepare
from etude.data.tokenize import load_tokenizer
from etude.errors import InputError
from etude.recipe import schema
from etude.recipe.load import recipe_from
from tests.bases import write_qwen2


def test_texts_with_special_tokens_and_columns_that_nothing_reads_are_counted_and_named(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    rows = [{"text": f"<|im_start|>user\n{n}<|im_end|>\n", "id": n} for n in range(6)] + [
        {"text": "plain", "id": 7, "x": 1}
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "x", "tokenizer": {"from": str(base)}, "train": {"steps": 1, "seq_len": 16, "global_batch_size": 1},
        "data": {"train": [{"path": str(path)}], "validation": "none"},
    }  # fmt: skip
    summary = prepare(recipe_from(values)).summary
    (source,) = summary["sources"]
    assert source["unread_columns"] == ["id", "x (1 rows)"]
    assert source["special_tokens_read_as_text"] == 6 and source["such_as"] == ["<|im_start|>"]
    columns, special = list_notes(summary)
    assert columns == f"{path}: columns that are not read: id, x (1 rows)"
    assert special.startswith(
        f"{path}: 6 of 7 texts hold special tokens, such as <|im_start|>, which are read as plain"
    )
    answered = [{"prompt": "say <|im_end|>", "completion": "a"}, {"prompt": "q", "completion": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in answered))
    (source,) = prepare(recipe_from(values)).summary["sources"]
    assert source["special_tokens_read_as_text"] == 1


def test_a_stretch_of_text_without_a_border_is_refused_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(schema.Tokenizer(from_=str(write_qwen2(tmp_path / "base"))))
    mixed = "a b " * 100 + "x" * 250 + " c d" * 100
    assert "".join(piece for piece, _ in cut_text(mixed, tokenizer, 100)) == mixed
    monkeypatch.setattr(encode, "_LONGEST_STRETCH", 400)
    with pytest.raises(InputError, match=r"a\.jsonl:3 has over 400 characters in a stretch"):
        list(cut_text("a b " * 100 + "x" * 1000, tokenizer, 100, name="a.jsonl:3"))

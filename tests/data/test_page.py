"""Lengths are counted as by hand, and every note on the sources has its line."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.page import describe_lengths, list_notes


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50), st.integers(1, 5000))
def test_every_length_stands_in_one_row_of_doublings(lengths: list[int], limit: int) -> None:
    lengths = [*lengths, limit + 2]  # so that lengths are known beyond the limit
    *rows, longer = describe_lengths(np.array(lengths), limit)
    for row in rows:
        low, high = (int(number.replace(",", "")) for number in row["tokens"].split(" to "))
        assert row["documents"] == sum(low <= length <= high for length in lengths)
        assert high in (16, 2 * (low - 1)) and row["share"] == row["documents"] / len(lengths)
    assert sum(row["documents"] for row in rows) == len(lengths)
    assert longer["tokens"] == f"more than train.seq_len {limit:,}"
    assert longer["documents"] == sum(length > limit for length in lengths)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50), st.integers(1, 5000))
def test_the_length_of_a_text_that_was_cut_is_not_told(lengths: list[int], limit: int) -> None:
    """Known of it is only that it is longer, which is one token more."""
    cut = np.minimum(lengths, limit + 1)
    *rows, longer = describe_lengths(cut, limit)
    assert sum(row["documents"] for row in rows) == int((cut <= limit).sum())
    assert longer["documents"] == int((cut > limit).sum())
    assert sum(row["share"] for row in [*rows, longer]) == pytest.approx(1)


def test_no_documents_have_no_lengths() -> None:
    assert describe_lengths(np.zeros(0, dtype=np.int64), 5) == []


def source(**values: Any) -> dict[str, Any]:
    return {"sources": [{"name": "a.jsonl", "documents": 1200, **values}]}


def test_rows_that_are_cut_are_counted_by_their_use() -> None:
    one, many = {"documents": 20, "truncated": 1}, {"documents": 300, "truncated": 269}
    assert list_notes({"train": many, "validation": one, "test": {"documents": 5, "truncated": 0}}) == [
        "269 of 300 training rows are longer than a sample, and cut (data.too_long)",
        "1 of 20 validation rows is longer than a sample, and cut (data.too_long)",
    ]


def test_each_note_names_its_source_and_its_figures() -> None:
    assert list_notes(source()) == list_notes({}) == []
    (columns,) = list_notes(source(unread_columns=["id", "x (3 rows)"]))
    assert columns == "a.jsonl: columns that are not read: id, x (3 rows)"
    (cells,) = list_notes(source(cells_without_value=["x (2 rows)"]))
    assert cells.startswith("a.jsonl: cells that look empty as pandas writes them") and "x (2 rows)" in cells
    (files,) = list_notes(source(files_of_rows_read_as_texts=2, such_files=["b.jsonl"]))
    assert files.startswith("a.jsonl: 2 files of rows that hold no text, such as b.jsonl, read whole")
    special = {"special_tokens_read_as_text": 1100, "such_as": ["</s>"]}
    (texts,), (chats,) = list_notes(source(**special)), list_notes(source(**special, blank_rows=[]))
    assert "1,100 of 1,200 texts hold special tokens, such as </s>, which are read as plain letters" in texts
    assert texts.startswith(chats) and texts.endswith(
        "give rows with messages instead of text rendered already"
    )
    lost, unknown = list_notes({"lost_bytes": 2048, "lost_ratio": 0.25, "unknown_ratio": 0.5})
    assert lost.startswith("2,048 bytes of the texts (25.00%) stand for no token")
    assert unknown == "50.00% of the tokens stand for what the tokenizer does not know"

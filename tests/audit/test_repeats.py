"""Rows that are there more than once are counted, whatever their layout."""

from collections import Counter

import numpy as np
import pytest

from etude.audit.repeats import Repeats, count_repeats
from etude.data.samples.sample import Texts
from etude.data.samples.texts import cut_documents, cut_rows


def texts_of(rows: list[list[int]]) -> Texts:
    ended = [[*row, 0] for row in rows]
    offsets = np.r_[0, np.cumsum([len(row) for row in ended])]
    sizes = np.array([len(row) for row in rows])
    return Texts(np.concatenate(ended).astype(np.uint16), offsets, sizes, None, 0)


@pytest.mark.parametrize("cut", [cut_rows, cut_documents])
def test_copies_are_counted(cut: object) -> None:
    draw = np.random.default_rng(1)
    distinct = [draw.integers(1, 200, draw.integers(2, 90)).tolist() for _ in range(60)]
    rows = [distinct[index] for index in draw.integers(0, 60, 200)]
    texts = texts_of(rows)
    split = cut(texts, texts.offsets[:-1], texts.offsets[1:], 1024)  # type: ignore[operator]
    counts = Counter(map(tuple, rows))
    assert count_repeats(split, 0) == Repeats(200, 200 - len(counts), max(counts.values()))


def test_rows_that_differ_in_one_token_at_an_end_are_no_copies() -> None:
    row = list(range(1, 80))
    rows = [row, [*row[:-1], 99], [99, *row[1:]], [*row, 99], row]
    texts = texts_of(rows)
    split = cut_documents(texts, texts.offsets[:-1], texts.offsets[1:], 1024)
    assert count_repeats(split, 0) == Repeats(5, 1, 2)

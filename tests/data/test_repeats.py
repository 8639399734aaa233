"""Rows that are there more than once are counted, lines and words that repeat in any text are not."""

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.data.repeats import Repeats, count_repeats


def count(texts: list[str], lengths: list[int], labels: list[int] | None = None) -> Repeats:
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts)
    flags = None if labels is None else np.array(labels, dtype=np.uint8)[:, None]
    return count_repeats(np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16), flags, np.array(lengths))


@given(rows=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1)), min_size=1, max_size=60))
def test_copies_are_rows_of_equal_text_and_label(rows: list[tuple[str, int]]) -> None:
    texts, labels = zip(*rows)
    lengths = [20] * len(rows)
    counts, plain = Counter(rows), Counter(texts)
    found = count(list(texts), lengths, list(labels))
    assert found == Repeats(len(rows), len(rows) - len(counts), max(counts.values()), 1.0)
    assert count(list(texts), lengths).copies == len(rows) - len(plain)


def test_short_rows_say_nothing() -> None:
    lines = ["}", "return x", *(f"a long row {n}" for n in range(8))]
    assert count(lines * 3, [2, 3, *[30] * 8] * 3) == Repeats(24, 16, 3, 240 / 245)
    assert count(["}"] * 9, [2] * 9) == Repeats()
    # Where long rows are few, they stand for little of the data.
    mostly_short = count(["a long row"] * 2 + ["}"] * 100, [30] * 2 + [2] * 100)
    assert mostly_short.copies == 1 and mostly_short.share == 0

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data import shingles
from etude.data.shingles import SHINGLE_TOKENS, jaccard, normalize, shingle

TEXT = st.text(st.sampled_from("ab_9 \n\t.()é汉A"), max_size=60)


def plain_shingles(text: str) -> list[tuple[str, ...]]:
    """The definition in plain Python."""
    tokens = re.findall(r"[A-Za-z0-9_\x80-\U0010ffff]+|[!-~]", normalize(text))
    if not tokens:
        return []
    padded = tokens + [""] * (SHINGLE_TOKENS - len(tokens))
    return list(zip(*(padded[place:] for place in range(SHINGLE_TOKENS))))


@given(st.lists(TEXT, max_size=8))
def test_hashes_are_equal_where_shingles_are(texts: list[str]) -> None:
    hashes, offsets = shingle(texts)
    expected = [plain_shingles(text) for text in texts]
    assert np.diff(offsets).tolist() == [len(each) for each in expected]
    known = {}
    for value, words in zip(hashes.tolist(), [words for each in expected for words in each]):
        assert known.setdefault(words, value) == value
    assert len(set(known.values())) == len(known)


@given(TEXT, TEXT)
def test_jaccard_is_that_of_the_sets(first: str, second: str) -> None:
    a, b = set(plain_shingles(first)), set(plain_shingles(second))
    hashes, offsets = shingle([first, second])
    got = jaccard(np.unique(hashes[: offsets[1]]), np.unique(hashes[offsets[1] :]))
    assert got == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)


@given(TEXT, st.integers(1, 9))
def test_a_text_in_pieces_has_the_shingles_of_the_whole(text: str, size: int) -> None:
    text = text * 3
    whole = shingle([text, text])[0]
    before, shingles._PIECE_BYTES = shingles._PIECE_BYTES, size
    try:
        assert shingle([text, text])[0].tolist() == whole.tolist()
    finally:
        shingles._PIECE_BYTES = before


def test_hashes_are_the_same_on_every_machine() -> None:
    hashes, offsets = shingle(["def f(x):", ""])
    assert hashes.tolist() == [7103343783792121026, 6807200540880110730]
    assert offsets.tolist() == [0, 2, 2]


def test_white_space_case_and_comments_make_no_difference() -> None:
    plain = "def add(first, second):\n    return first + second\n"
    other = (
        "# Adds.\nDEF add(first,\tsecond):\n  // really\n    return first /* sum\n of both */ + second  # "
        "done\n"
    )
    assert normalize(plain).split() == normalize(plain.upper()).split()
    hashes, offsets = shingle([plain, other])
    assert hashes[: offsets[1]].tolist() == hashes[offsets[1] :].tolist()


@pytest.mark.parametrize(
    "text", ["Write C# code, see http://x.y/z", "#include <stdio.h>", "a/*b", "x //y", "#!shebang"]
)
def test_what_only_looks_like_a_comment_stays(text: str) -> None:
    assert normalize(text) == text.lower() or text.startswith("#!")


def test_a_text_of_comments_keeps_them() -> None:
    text = "# A licence\n# of some lines\nx = 1\n"
    assert normalize(text) == text.lower()


def test_many_open_comments_take_no_time_to_speak_of() -> None:
    assert len(normalize(" /* " * 300_000)) > 0
    assert len(normalize(" # " * 300_000)) > 0

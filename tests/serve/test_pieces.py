"""The text of an answer by pieces, against that of all its tokens at once."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etude.data.tokenize import Tokenizer
from etude.export import open_tokenizer
from etude.serve.pieces import Pieces
from tests.bases import write_llama


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_tokenizer(write_llama(tmp_path_factory.mktemp("llama")))


@given(ids=st.lists(st.integers(1, 299), max_size=40))
def test_pieces_make_the_text_of_all_tokens(tokenizer: Tokenizer, ids: list[int]) -> None:
    pieces = Pieces(tokenizer)
    assert "".join([*map(pieces.add, ids), pieces.end()]) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(1, 299), min_size=1, max_size=20), at=st.integers(0, 19))
def test_a_text_that_goes_on_is_what_its_tokens_add(tokenizer: Tokenizer, ids: list[int], at: int) -> None:
    pieces = Pieces(tokenizer, before=ids[:at])
    start = tokenizer.decode(ids[:at])
    assume(not start.endswith("\ufffd"))
    assert start + "".join([*map(pieces.add, ids[at:]), pieces.end()]) == tokenizer.decode(ids)


@given(text=st.text("abé€", max_size=20), stops=st.lists(st.text("abé€", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_the_first_stop_sequence(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    pieces, found = Pieces(tokenizer, stops), ""
    for token in tokenizer.encode(text):
        found += pieces.add(int(token))
        assert not any(stop in found for stop in stops)
        if pieces.is_stopped:
            break
    found += pieces.end()
    starts = [text.find(stop) for stop in stops if stop in text]
    assert pieces.is_stopped == bool(starts)
    # Where a token ends two of them, the first place counts.
    assert text.startswith(found) and (found == text or len(found) in starts)

"""Targets, positions and bytes of samples, against loops over the tokens."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.data.samples.sample import Spans, Stretches, Texts, predict_next

EOS = 0
TOKENS = st.lists(st.integers(0, 3), min_size=2, max_size=20)
SPANS = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 9)), min_size=1, max_size=9)


@given(TOKENS)
def test_each_token_is_predicted_from_those_of_its_document(window: list[int]) -> None:
    sample = predict_next(np.array(window), EOS)
    assert sample.tokens.tolist() == window[:-1] and sample.labels.tolist() == window[1:]
    document, position = 0, -1
    for at, token in enumerate(window[:-1]):
        begins = at > 0 and token == EOS
        document, position = document + begins, 0 if begins else position + 1
        assert (sample.documents[at], sample.positions[at]) == (document, position)


def texts_of(lengths: list[int], *, byte_level: bool = True) -> Texts:
    """Documents of tokens 1, 2, 3 ..., each of as many bytes as its number says, but for the end tokens."""
    offsets = np.r_[0, np.cumsum(np.array(lengths) + 1)]
    tokens = np.arange(1, offsets[-1] + 1)
    tokens[offsets[1:] - 1] = EOS
    each = np.arange(offsets[-1] + 1)
    sizes = np.array([tokens[low:high].sum() for low, high in pairwise(offsets)])
    return Texts(tokens, offsets, sizes, each if byte_level else None, EOS)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_bytes_of_documents_and_parts_are_those_of_their_tokens(
    lengths: list[int], data: st.DataObject
) -> None:
    texts = texts_of(lengths)
    spans = []
    for low, high in zip(texts.offsets[:-1].tolist(), texts.offsets[1:].tolist()):
        begin = data.draw(st.integers(low, high - 1))
        spans.append((begin, data.draw(st.integers(begin + 1, high))))
    starts, ends = np.array(spans).T
    expected = sum(int(texts.tokens[low:high].sum()) for low, high in spans)
    assert texts.measure(starts, ends) == (int((ends - starts).sum()), expected)
    assert texts.count_bytes(starts, ends) == expected
    whole = texts_of(lengths, byte_level=False)
    assert whole.measure(texts.offsets[:-1], texts.offsets[1:])[1] == texts.sizes.sum()
    assert whole.count_bytes(texts.offsets[:-1], texts.offsets[1:]) == texts.sizes.sum()


@given(SPANS, st.integers(1, 9), st.integers(1, 12))
def test_the_longest_spans_are_the_longest(pairs: list[tuple[int, int]], seq_len: int, count: int) -> None:
    starts, lengths = np.array(pairs).T
    spans = Spans(
        tokens=np.arange(40), starts=starts, ends=starts + lengths, documents=len(pairs), targets=10, bytes=0,
        truncated=0, share=0.5,
    )  # fmt: skip
    samples = Stretches(spans, seq_len)
    chosen = samples.longest(count).tolist()
    assert len(set(chosen)) == min(count, len(pairs)) == len(chosen)
    assert sorted(lengths)[-len(chosen) :] == sorted(lengths[chosen])
    assert samples.tokens_per_sample == np.mean([min(length, seq_len) for length in lengths])
    assert len(samples) == len(pairs) and spans.scored == 5
    assert [samples.place(at) for at in range(len(pairs))] == [(low, low + size) for low, size in pairs]

"""Exactly the answers within train.seq_len are targets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.samples.conversations import Conversations, Left, cut_conversations
from etude.data.samples.sample import NO_TARGET, Texts

EOS = 0


def examples_of(
    rows: list[tuple[int, list[tuple[int, int]]]], seq_len: int, **settings: bool
) -> tuple[Conversations, Left]:
    """Rows of so many tokens 1, 2, 3 ... with answers at places of the row."""
    offsets = np.r_[0, np.cumsum([length for length, _ in rows])]
    answers = [(start + a, start + b) for start, (_, spans) in zip(offsets, rows) for a, b in spans]
    size = int(offsets[-1])
    texts = Texts(
        np.arange(1, size + 1), offsets, np.ones(len(rows), np.int64), np.ones(size + 1, np.int64), EOS
    )
    pairs = np.array(answers, dtype=np.int64).reshape(-1, 2)
    return cut_conversations(texts, np.arange(len(rows)), pairs, seq_len, **settings)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(2, 12), st.lists(st.integers(0, 12), max_size=6).map(sorted)),
        min_size=1,
        max_size=6,
    ),
    seq_len=st.integers(1, 12),
    answers_only=st.booleans(),
    drop=st.booleans(),
)
def test_of_examples_exactly_the_answers_within_seq_len_are_targets(
    rows: list[tuple[int, list[int]]], seq_len: int, answers_only: bool, drop: bool
) -> None:
    spans = [
        (length, [(a, min(b, length)) for a, b in zip(cuts[::2], cuts[1::2]) if a < min(b, length)])
        for length, cuts in rows
    ]
    split, left = examples_of(spans, seq_len, answers_only=answers_only, drop=drop)
    expected = []
    for start, (length, answers) in zip(np.cumsum([0, *(length for length, _ in spans)]), spans):
        needed = length if not answers_only else max((b for _, b in answers), default=0)
        if drop and needed > seq_len + 1:
            continue
        window = range(1, min(length, seq_len + 1))  # the first token is given
        targets = [at for at in window if not answers_only or any(a <= at < b for a, b in answers)]
        if targets:
            expected.append([int(start) + at + 1 for at in targets])
    samples = [split.sample(index) for index in range(len(split))]
    assert [sample.labels[sample.labels != NO_TARGET].tolist() for sample in samples] == expected
    assert split.spans.targets == split.spans.bytes == sum(map(len, expected))
    for sample in samples:
        assert len(sample.tokens) <= seq_len and sample.labels[-1] != NO_TARGET
        scored = sample.labels != NO_TARGET
        assert np.array_equal(sample.labels[scored], sample.tokens[scored] + 1)  # what comes next, once
        assert sample.documents.max() == 0 and sample.positions.tolist() == list(range(len(sample.tokens)))
    assert len(split) + left.dropped.sum() + left.cut_away.sum() == len(rows)
    if samples:
        assert split.tokens_per_sample == np.mean([len(sample.tokens) for sample in samples])

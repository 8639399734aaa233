"""Units stay whole, and every token of a split is a target exactly once."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data import split
from etude.data.split import (
    NO_TARGET,
    Left,
    Split,
    Texts,
    connect,
    cut_examples,
    hash_words,
    hold_out,
    number_texts,
)
from etude.errors import InputError
from tests.data.splits import EOS, split_of


def hashes_of(texts: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


@given(st.text(alphabet="ab \n\t", max_size=60), st.integers(1, 20))
def test_words_give_the_hash_and_white_space_does_not(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_PIECE_CHARACTERS", piece)
        assert hash_words(text) == hash_words(" ".join(text.split()))
        assert hash_words(text) != hash_words(f"{text} a")


def naive_units(groups: list[int], texts: list[int]) -> list[int]:
    units = list(range(len(groups)))
    for _ in units:
        for left in range(len(units)):
            for right in range(len(units)):
                if groups[left] == groups[right] or texts[left] == texts[right]:
                    units[left] = units[right] = min(units[left], units[right])
    return units


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=9))
def test_documents_that_share_a_group_or_a_text_are_connected_and_no_others(
    pairs: list[tuple[int, int]],
) -> None:
    groups, texts = ([pair[side] for pair in pairs] for side in (0, 1))
    units = connect(np.array(groups, dtype=np.int64), np.array(texts, dtype=np.int64))
    assert units.tolist() == naive_units(groups, texts)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 12), st.text("abcdefgh", min_size=1, max_size=2)), min_size=2, max_size=40
    ),
    ratio=st.floats(0.01, 0.99),
)
def test_no_group_and_no_text_is_in_both_splits(pairs: list[tuple[int, str]], ratio: float) -> None:
    groups, texts = np.array([group for group, _ in pairs]), [text for _, text in pairs]
    hashes = hashes_of(texts)
    units = connect(groups, number_texts(hashes))
    if len(set(units)) == 1:
        with pytest.raises(InputError, match="validation"):
            hold_out(hashes, units, ratio)
        return
    held = hold_out(hashes, units, ratio)
    assert held.any() and not held.all()
    assert not set(groups[held]) & set(groups[~held])
    assert not {t for t, h in zip(texts, held) if h} & {t for t, h in zip(texts, held) if not h}
    order = np.random.default_rng(0).permutation(len(pairs))
    assert np.array_equal(hold_out(hashes[order], units[order], ratio), held[order])


def test_lone_documents_are_held_out_by_lowest_hash_and_rounded_up() -> None:
    hashes = hashes_of([str(index) for index in range(101)])
    held = hold_out(hashes, np.arange(101), 0.05)
    assert held.sum() == math.ceil(0.05 * 101)
    keys = [bytes(row) for row in hashes]
    assert {key for key, h in zip(keys, held) if h} == set(sorted(keys)[:6])


def test_a_unit_that_holds_most_of_the_data_is_not_held_out() -> None:
    for seed in range(50):
        hashes = hashes_of([f"{seed} {index}" for index in range(100)])
        units = np.array([0] * 80 + list(range(80, 100)))
        held = hold_out(hashes, units, 0.05)
        assert not held[:80].any() and held.sum() == 5


def test_units_of_any_size_are_as_likely_to_be_held_out() -> None:
    chosen = [0, 0]
    for seed in range(400):
        hashes = hashes_of([f"{seed} {index}" for index in range(60)])
        units = np.array(
            [index // 5 if index < 30 else index for index in range(60)]
        )  # 6 units of 5, 30 of 1
        held = hold_out(hashes, units, 0.1)
        chosen[0] += len(set(units[held & (units < 6)]))
        chosen[1] += len(set(units[held & (units >= 6)]))
    large, small = chosen[0] / 6, chosen[1] / 30
    assert 0.7 < large / small < 1.3


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    held=st.sets(st.integers(0, 11)),
    seq_len=st.integers(2, 7),
)
def test_every_token_of_the_split_is_a_target_exactly_once(
    lengths: list[int], held: set[int], seq_len: int
) -> None:
    split = split_of(lengths, "row", seq_len, held)
    stream: list[int] = []
    at = 0
    for index, length in enumerate(lengths):
        ids = [*range(at + 1, at + 1 + length), EOS]
        stream += [] if index in held else ids
        at += length + 1
    samples = [split.sample(index) for index in range(len(split))]
    labels = [int(label) for sample in samples for label in sample.labels]
    tokens = [int(token) for sample in samples for token in sample.tokens]
    assert labels == stream and tokens == [EOS, *stream][: len(stream)]
    assert split.targets == len(stream) and split.bytes == len(stream) - labels.count(EOS)
    assert all(len(sample.tokens) == seq_len for sample in samples[:-1])
    for sample in samples:
        document = position = -1
        for index, token in enumerate(sample.tokens):
            starts = index == 0 or token == EOS
            document, position = document + starts, 0 if starts else position + 1
            assert (sample.documents[index], sample.positions[index]) == (document, position)


def test_a_document_is_a_sample_and_what_is_cut_off_is_counted() -> None:
    split = split_of([2, 6, 3], "document", 4)
    samples = [split.sample(index) for index in range(len(split))]
    assert [sample.tokens.tolist() for sample in samples] == [[0, 1, 2], [0, 4, 5, 6], [0, 11, 12, 13]]
    assert [sample.labels.tolist() for sample in samples] == [[1, 2, 0], [4, 5, 6, 7], [11, 12, 13, 0]]
    assert split.truncated == 1 and split.targets == 11 and split.bytes == 9
    assert not any(sample.documents.any() for sample in samples)


def examples_of(
    rows: list[tuple[int, list[tuple[int, int]]]], seq_len: int, **settings: bool
) -> tuple[Split, Left]:
    """Rows of so many tokens 1, 2, 3 ... with answers at places of the row."""
    offsets = np.r_[0, np.cumsum([length for length, _ in rows])]
    answers = [(start + a, start + b) for start, (_, spans) in zip(offsets, rows) for a, b in spans]
    size = int(offsets[-1])
    texts = Texts(
        np.arange(1, size + 1), offsets, np.ones(len(rows), np.int64), np.ones(size + 1, np.int64), EOS
    )
    pairs = np.array(answers, dtype=np.int64).reshape(-1, 2)
    return cut_examples(texts, np.arange(len(rows)), pairs, seq_len, **settings)


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
    assert split.targets == split.bytes == sum(map(len, expected))
    for sample in samples:
        assert len(sample.tokens) <= seq_len and sample.labels[-1] != NO_TARGET
        scored = sample.labels != NO_TARGET
        assert np.array_equal(sample.labels[scored], sample.tokens[scored] + 1)  # what comes next, once
        assert sample.documents.max() == 0 and sample.positions.tolist() == list(range(len(sample.tokens)))
    assert len(split) + left.dropped.sum() + left.cut_away.sum() == len(rows)
    if samples:
        assert split.tokens_per_sample == np.mean([len(sample.tokens) for sample in samples])

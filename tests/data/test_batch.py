"""The samples of a micro-batch."""

from typing import Any

import numpy as np
import pytest

from etude.data.batch import NO_TARGET, collate, halves
from etude.data.samples.sample import Sample


def sample(*tokens: int, documents: list[int] | None = None) -> Sample:
    ids = np.array(tokens)
    return Sample(ids, ids + 1, np.array(documents or [0] * len(tokens)), np.arange(len(tokens)))


def test_samples_of_one_length_are_rows() -> None:
    batch = collate([sample(5, 6), sample(8, 9)], attend_across_documents=True)
    assert batch.tokens.tolist() == [[5, 6], [8, 9]] and batch.labels.tolist() == [[6, 7], [9, 10]]
    assert batch.tokens.dtype == batch.labels.dtype == np.int64
    assert batch.positions is None and batch.lengths is None


def test_samples_of_unequal_length_lie_end_to_end_without_padding() -> None:
    batch = collate([sample(5, 6, 7), sample(8)], attend_across_documents=True)
    assert batch.tokens.tolist() == [[5, 6, 7, 8]] and batch.labels.tolist() == [[6, 7, 8, 9]]
    assert batch.lengths == (3, 1)
    assert batch.positions is not None and batch.positions.tolist() == [[0, 1, 2, 0]]


def test_documents_that_must_not_see_each_other_are_sequences_of_their_own() -> None:
    batch = collate([sample(5, 6, documents=[0, 1]), sample(8, 9)], attend_across_documents=False)
    assert batch.tokens.tolist() == [[5, 6, 8, 9]]
    assert batch.lengths == (1, 1, 2)
    assert batch.positions is not None and batch.positions.tolist() == [[0, 0, 0, 1]]
    assert collate([sample(5, 6), sample(8, 9)], attend_across_documents=False).lengths is None


def scored(length: int, **more: Any) -> Sample:
    """A sample whose last two tokens are targets."""
    ids = np.arange(100 * length, 100 * length + length)
    labels = np.where(ids < ids[-1] - 1, NO_TARGET, ids + 1)
    return Sample(ids, labels, np.zeros(length, dtype=np.int64), np.arange(length), **more)


@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 6, 4, 2, 7)])
def test_the_halves_of_a_batch_hold_its_samples_and_targets(lengths: tuple[int, ...]) -> None:
    weight = {length: np.full(length, float(length), dtype=np.float32) for length in lengths}
    samples = [scored(length, weights=weight[length]) for length in lengths]
    parts = halves(collate(samples, attend_across_documents=True))
    middle = len(lengths) // 2
    for part, some in zip(parts, (samples[:middle], samples[middle:])):
        alone = collate(some, attend_across_documents=True)
        for name in ("tokens", "labels", "weights"):
            ours, theirs = getattr(part, name), getattr(alone, name)
            assert ours.ravel().tolist() == theirs.ravel().tolist()
        assert part.lengths in (alone.lengths, tuple(map(len, (each.tokens for each in some))))
        places = slice(None) if part.scored is None else part.scored
        assert (part.labels.ravel()[places] != NO_TARGET).all() and part.weights is not None
    assert len(halves(collate(samples[:1], attend_across_documents=True))) == 1


def test_the_halves_of_pairs_and_of_labelled_texts_keep_their_targets() -> None:
    pairs = [
        Sample(np.arange(n), np.arange(50, 50 + m), np.zeros(n), np.arange(n), is_pair=True)
        for n, m in ((3, 2), (4, 5), (2, 1))
    ]
    first, second = halves(collate(pairs, attend_across_documents=True))
    assert (first.lengths, first.target_lengths, first.labels.tolist()) == ((3,), (2,), [[50, 51]])
    assert (second.lengths, second.target_lengths) == ((4, 2), (5, 1))
    assert second.labels.tolist() == [[50, 51, 52, 53, 54, 50]] and second.tokens.tolist() == [
        [0, 1, 2, 3, 0, 1]
    ]
    texts = [scored(n, classes=np.eye(3, dtype=np.uint8)[n % 3]) for n in (4, 5, 6)]
    first, second = halves(collate(texts, attend_across_documents=True))
    assert first.classes is not None and second.classes is not None
    assert first.classes.tolist() == [[0, 1, 0]] and second.classes.tolist() == [[0, 0, 1], [1, 0, 0]]

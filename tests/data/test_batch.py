"""The samples of a micro-batch."""

import numpy as np

from etude.data.batch import collate
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

"""Samples side by side."""

import numpy as np

from etude.data.batch import collate
from etude.data.split import Sample


def sample(*tokens: int, documents: list[int] | None = None) -> Sample:
    ids = np.array(tokens)
    return Sample(ids, ids + 1, np.array(documents or [0] * len(tokens)), np.arange(len(tokens)))


def test_samples_are_padded_at_the_end_to_the_longest_of_them() -> None:
    batch = collate([sample(5, 6, 7), sample(8)], attend_across_documents=True)
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.labels.tolist() == [[6, 7, 8], [9, -100, -100]]
    assert batch.tokens.dtype == batch.labels.dtype == np.int64
    assert batch.positions is None and batch.documents is None


def test_documents_are_given_where_a_row_holds_several_and_must_not_see_each_other() -> None:
    batch = collate([sample(5, 6, documents=[0, 1]), sample(8)], attend_across_documents=False)
    assert batch.documents is not None and batch.documents.tolist() == [[0, 1], [0, -1]]
    assert batch.positions is not None and batch.positions.tolist() == [[0, 1], [0, 0]]
    assert collate([sample(5, 6), sample(8)], attend_across_documents=False).documents is None

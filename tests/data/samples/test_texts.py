"""Every token of a split is a target exactly once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.samples.texts import cut_documents, cut_rows
from tests.data.samples.making import EOS, samples_of


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    held=st.sets(st.integers(0, 11)),
    seq_len=st.integers(2, 7),
)
def test_every_token_of_the_split_is_a_target_exactly_once(
    lengths: list[int], held: set[int], seq_len: int
) -> None:
    split = samples_of(lengths, seq_len, cut_rows, held)
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
    assert split.spans.targets == len(stream) and split.spans.bytes == len(stream) - labels.count(EOS)
    assert all(len(sample.tokens) == seq_len for sample in samples[:-1])
    for sample in samples:
        document = position = -1
        for index, token in enumerate(sample.tokens):
            starts = index == 0 or token == EOS
            document, position = document + starts, 0 if starts else position + 1
            assert (sample.documents[index], sample.positions[index]) == (document, position)


def test_a_document_is_a_sample_and_what_is_cut_off_is_counted() -> None:
    split = samples_of([2, 6, 3], 4, cut_documents)
    samples = [split.sample(index) for index in range(len(split))]
    assert [sample.tokens.tolist() for sample in samples] == [[0, 1, 2], [0, 4, 5, 6], [0, 11, 12, 13]]
    assert [sample.labels.tolist() for sample in samples] == [[1, 2, 0], [4, 5, 6, 7], [11, 12, 13, 0]]
    assert split.spans.truncated == 1 and split.spans.targets == 11 and split.spans.bytes == 9
    assert not any(sample.documents.any() for sample in samples)

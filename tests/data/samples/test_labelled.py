import numpy as np

from etude.data.samples.labelled import take_labelled
from etude.data.samples.sample import NO_TARGET, Texts


def test_a_labelled_text_is_a_sample_without_token_targets() -> None:
    tokens = np.arange(10, 22, dtype="<u2")
    texts = Texts(tokens, np.array([0, 3, 7, 12]), np.array([3, 4, 5]), None, 0)
    columns = {
        "labels": np.eye(3, dtype=np.uint8), "seconds": np.array([3, 2, 5]),
        "code": np.arange(48, dtype=np.uint16).reshape(12, 4),
    }  # fmt: skip
    samples = take_labelled(texts, np.array([2, 1]), columns, 8, truncated=1)
    assert len(samples) == samples.spans.targets == samples.spans.documents == 2
    assert samples.spans.bytes == 9 and samples.tokens_per_sample == 4.5
    sample = samples.sample(1)
    assert sample.tokens.tolist() == [13, 14, 15, 16] and set(sample.labels.tolist()) == {NO_TARGET}
    assert sample.classes is not None and sample.classes.tolist() == [0, 1, 0] and sample.second == 2
    assert sample.code is not None and sample.code[0].tolist() == [12, 13, 14, 15]
    assert samples.longest(1).tolist() == [0]

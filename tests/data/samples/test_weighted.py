import numpy as np
import pytest

from etude.data.samples.hidden import Hidden, Masking
from etude.data.samples.sample import TextSamples
from etude.data.samples.texts import cut_documents, cut_rows
from etude.data.samples.weighted import Weighted
from tests.data.samples.making import Cut, samples_of

WEIGHTS = np.array([0.0, 0.5, 2.0], dtype=np.float32)


@pytest.mark.parametrize("cut", [cut_rows, cut_documents])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_each_label_has_the_weight_of_its_token(cut: Cut, is_hidden: bool) -> None:
    plain: TextSamples = samples_of([2, 6, 3, 9], 5, cut)  # type: ignore[assignment]
    kinds = (plain.spans.tokens % 3).astype(np.uint8)
    samples = Weighted(Hidden(plain, Masking(1, 0.5, 3, 99, (0,))) if is_hidden else plain, kinds, WEIGHTS)
    total = 0.0
    for index in range(len(plain)):
        sample, whole = samples.sample(index), plain.sample(index).labels
        assert sample.weights is not None
        assert sample.weights.tolist() == WEIGHTS[whole % 3].tolist()
        total += float(sample.weights[sample.labels >= 0].sum())
    assert samples.targets_per_sample == pytest.approx(total / len(plain))
    assert samples.spans.scored == samples.spans.targets * (0.5 if is_hidden else 1.0)

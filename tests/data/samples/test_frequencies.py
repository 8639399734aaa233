"""The entropy of targets by their frequencies, against arithmetic."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from etude.data.samples.frequencies import target_entropy
from etude.data.samples.sample import NO_TARGET, Sample


class Rows:
    def __init__(self, labels: Sequence[Any]) -> None:
        self.labels = [np.asarray(each, dtype=np.int64) for each in labels]

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> Sample:
        return Sample(*[self.labels[index]] * 4)


def test_it_is_that_of_the_frequencies_without_what_is_not_scored() -> None:
    labels = np.r_[np.zeros(5000), np.ones(2500), np.full(2500, 2), np.full(300, NO_TARGET)]
    assert target_entropy(Rows([labels] * 3)) == pytest.approx(1.5 * np.log(2), abs=1e-3)  # type: ignore[arg-type]


def test_few_targets_are_corrected_for_their_number() -> None:
    draw = np.random.default_rng(0)
    found = [target_entropy(Rows([draw.integers(50, size=400)])) for _ in range(20)]  # type: ignore[arg-type]
    assert np.mean([each for each in found if each is not None]) == pytest.approx(np.log(50), abs=0.01)


def test_no_targets_have_none() -> None:
    assert target_entropy(Rows([])) is None and target_entropy(Rows([[NO_TARGET]])) is None  # type: ignore[arg-type]

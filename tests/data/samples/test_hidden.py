import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.samples.hidden import Masking


@given(
    length=st.integers(1, 200), ratio=st.floats(0.05, 0.5), epoch=st.integers(0, 5), index=st.integers(0, 50),
    seed=st.integers(0, 2**62),
)  # fmt: skip
def test_a_share_is_hidden_never_special_tokens_and_the_same_each_time(
    length: int, ratio: float, epoch: int, index: int, seed: int
) -> None:
    masking = Masking(seed, ratio, 3, 500, (0, 1, 2, 3))
    text = np.random.default_rng(index).integers(0, 500, length)
    tokens, labels = masking.hide(text, epoch=epoch, index=index)
    hidden, free = labels >= 0, ~np.isin(text, (0, 1, 2, 3))
    assert hidden.sum() == min(max(round(ratio * free.sum()), 1), free.sum())
    assert not (hidden & ~free).any()
    assert (labels[hidden] == text[hidden]).all() and (tokens[~hidden] == text[~hidden]).all()
    again = masking.hide(text, epoch=epoch, index=index)
    assert (again[0] == tokens).all() and (again[1] == labels).all()


def test_of_hidden_tokens_eight_in_ten_are_masked_and_one_is_another() -> None:
    masking = Masking(1, 0.5, 3, 50_000, (0,))
    text = np.arange(10, 40_010)
    tokens, labels = masking.hide(text, epoch=0, index=0)
    hidden = labels >= 0
    assert (tokens[hidden] == 3).mean() == pytest.approx(0.8, abs=0.02)
    assert (tokens[hidden] == text[hidden]).mean() == pytest.approx(0.1, abs=0.02)
    assert (masking.hide(text, epoch=1, index=0)[1] != labels).any()

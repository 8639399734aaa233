"""Relative positions of an encoder-decoder against transformers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.models.t5_blocks import relative_buckets


@given(
    distances=st.lists(st.integers(-5000, 5000), min_size=1, max_size=50),
    buckets=st.integers(4, 64),
    beyond=st.integers(1, 500),
    is_decoder=st.booleans(),
)
def test_buckets_equal_those_of_transformers(
    distances: list[int], buckets: int, beyond: int, is_decoder: bool
) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance, max_distance = torch.tensor(distances), buckets // 2 + beyond
    expected = T5Attention._relative_position_bucket(distance, not is_decoder, buckets, max_distance)
    ours = relative_buckets(distance, buckets=buckets, max_distance=max_distance, is_decoder=is_decoder)
    assert ours.tolist() == expected.tolist()

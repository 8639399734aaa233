"""Sources and targets cut by index are those cut one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.data.samples.pairs import take_pairs
from etude.data.samples.sample import Texts

SIDE = st.lists(st.integers(1, 99), min_size=1, max_size=9)


@given(
    pairs=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=6), seq_len=st.integers(2, 9),
    target_len=st.integers(2, 9), drop=st.booleans(),
)  # fmt: skip
def test_a_side_that_is_too_long_loses_what_stands_before_its_last_token(
    pairs: list[tuple[list[int], list[int]]], seq_len: int, target_len: int, drop: bool
) -> None:
    tokens = np.array([token for source, target in pairs for token in (*source, *target)], dtype="<u2")
    lengths = [len(source) + len(target) for source, target in pairs]
    texts = Texts(tokens, np.r_[0, np.cumsum(lengths)], np.array(lengths), np.ones(100, dtype=np.int64), 0)
    seconds = np.array([len(source) for source, _ in pairs])
    samples, too_long = take_pairs(texts, np.arange(len(pairs)), seconds, seq_len, target_len, drop=drop)

    def cut(ids: list[int], most: int) -> list[int]:
        return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]

    is_long = [len(source) > seq_len or len(target) > target_len for source, target in pairs]
    assert too_long.tolist() == is_long
    kept = [pair for pair, flag in zip(pairs, is_long) if not (drop and flag)]
    found = [samples.sample(index) for index in range(len(samples))]
    assert [each.tokens.tolist() for each in found] == [cut(source, seq_len) for source, _ in kept]
    assert [each.labels.tolist() for each in found] == [cut(target, target_len) for _, target in kept]
    assert samples.spans.targets == sum(len(each.labels) for each in found)
    assert samples.spans.truncated == (0 if drop else sum(is_long))

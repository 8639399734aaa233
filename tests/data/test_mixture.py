"""The shares of tasks are those stated, and every sample of a task has its turn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.mixture import Mixture, mix
from tests.data.samples.making import samples_of

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def part(size: int):  # type: ignore[no-untyped-def]
    """So many samples of four tokens."""
    return samples_of([3] * size)


@given(SIZES, st.lists(st.floats(0.2, 5), min_size=4, max_size=4), st.integers(0, 9))
def test_an_epoch_has_the_stated_shares_and_ends_with_the_first_task(
    sizes: list[int], ratios: list[float], seed: int
) -> None:
    wanted = {f"task{index}": ratio for index, ratio in enumerate(ratios[: len(sizes)])}
    mixture = mix({name: part(size) for name, size in zip(wanted, sizes)}, wanted)
    assert any(count == size for count, size in zip(mixture.counts, sizes))
    assert all(count <= size for count, size in zip(mixture.counts, sizes))
    for name, count in zip(wanted, mixture.counts):
        share = wanted[name] * len(mixture) / sum(wanted.values())
        assert count == pytest.approx(share, abs=len(sizes) + 1)
    ids = np.random.default_rng(seed).permutation(len(mixture))
    groups = mixture.groups(ids)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(mixture)))
    for group in groups:  # in the order given, and of one task
        assert [index for index in ids.tolist() if index in set(group.tolist())] == group.tolist()
        assert len({mixture.sample(int(index)).task for index in group}) == 1


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 6))
def test_places_go_on_through_the_samples_of_a_task(size: int, places: int, epochs: int) -> None:
    split = part(size)
    mixture = Mixture({"a": part(2), "b": split}, (2, places))
    shown = Counter(
        int(mixture.sample(2 + place, epoch).tokens[1]) for epoch in range(epochs) for place in range(places)
    )
    plain = Counter(int(split.sample(index % size).tokens[1]) for index in range(places * epochs))
    assert shown == plain
    counts = [shown[int(split.sample(index).tokens[1])] for index in range(size)]
    assert max(counts) - min(counts) <= 1


def test_targets_of_an_epoch_are_those_of_its_places() -> None:
    mixture = Mixture({"a": part(2), "b": samples_of([1] * 8, seq_len=2)}, (2, 4))
    targets = [len(mixture.sample(place).labels) for place in range(len(mixture))]
    assert mixture.targets == mixture.scored == sum(targets)
    assert mixture.tokens_per_sample == pytest.approx(sum(targets) / 6)

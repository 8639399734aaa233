"""The samples of a step follow from its number, whatever the ranks and micro-batches."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.loader import (
    Loader,
    iterate_once,
    load_samples,
    longest_batch,
    longest_mixed,
    permute,
    rank_part,
    sample_ids,
    steps_per_epoch,
)
from etude.data.samples.sample import Sample, Samples
from etude.data.samples.texts import Rows, cut_documents
from tests.data.samples.making import samples_of


def loader_of(split: Samples, size: int = 8, micro: int = 4, **settings: int) -> Loader:
    return Loader(
        split,
        global_batch_size=size,
        micro_batch_size=micro,
        seed=3,
        attend_across_documents=False,
        **settings,
    )


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(n), n=n, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(permute(np.arange(n)[n // 2 :], n=n, seed=seed, epoch=epoch), order[n // 2 :])
    if n > 50:
        assert not np.array_equal(order, permute(np.arange(n), n=n, seed=seed, epoch=epoch + 1))
        assert not np.array_equal(order, permute(np.arange(n), n=n, seed=seed ^ 1, epoch=epoch))


def test_the_order_is_the_same_in_every_version() -> None:
    assert permute(np.arange(10), n=10, seed=17, epoch=0).tolist() == [0, 9, 2, 3, 5, 7, 8, 4, 6, 1]


@pytest.mark.parametrize("n", [5, 8, 100])
def test_every_sample_is_as_likely_at_every_place(n: int) -> None:
    epochs = 800
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), permute(np.arange(n), n=n, seed=1, epoch=epoch)] += 1
    expected = epochs / n
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_100_samples_at_batch_8_are_13_steps_an_epoch_and_the_last_holds_4() -> None:
    assert steps_per_epoch(100, 8) == 13
    steps = [sample_ids(step, n=100, global_batch_size=8, seed=1) for step in range(26)]
    assert [len(step) for step in steps] == ([8] * 12 + [4]) * 2
    for epoch in (steps[:13], steps[13:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(100))


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 60), size=st.integers(1, 70), ranks=st.integers(1, 5), step=st.integers(0, 40))
def test_ranks_see_disjoint_samples_whose_union_is_the_step(n: int, size: int, ranks: int, step: int) -> None:
    ids = sample_ids(step, n=n, global_batch_size=size, seed=5)
    parts = [rank_part(ids, rank, ranks) for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts), ids) and len(set(ids.tolist())) == len(ids)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("micro", "ranks"), [(1, 1), (3, 1), (8, 1), (4, 2), (1, 3)])
def test_the_samples_of_a_step_do_not_depend_on_micro_batches_and_ranks(micro: int, ranks: int) -> None:
    split = samples_of([5, 9, 3, 7, 1, 8], 3)
    steps = 2 * steps_per_epoch(len(split), 8)
    expected = [sample_ids(step, n=len(split), global_batch_size=8, seed=3).tolist() for step in range(steps)]
    ledgers: list[list[int]] = [[] for _ in range(steps)]
    for rank in range(ranks):
        for batches in loader_of(split, 8, micro, rank=rank, ranks=ranks).iterate(0, steps):
            ledgers[batches.step] += batches.ids.tolist()
            assert batches.epoch == batches.step // (steps // 2)
            assert len(batches.micro_batches) == -(-len(batches.ids) // micro)
            labels = [label for batch in batches.micro_batches for label in batch.labels.ravel().tolist()]
            assert labels == [
                label for index in batches.ids for label in split.sample(int(index)).labels.tolist()
            ]
    assert ledgers == expected


def test_starting_at_any_step_gives_what_would_have_come() -> None:
    split = samples_of([5, 9, 3, 7, 1, 8], 3)
    whole = [batches.ids.tolist() for batches in loader_of(split).iterate(0, 9)]
    for first in range(10):
        assert [batches.ids.tolist() for batches in loader_of(split).iterate(first, 9)] == whole[first:]


def test_a_rank_may_have_nothing_in_the_last_step() -> None:
    split = samples_of([3], 8, cut_documents)
    assert loader_of(split, 8, 4, rank=1, ranks=2).load(0).micro_batches == []


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("etude-loader")]


def test_closing_stops_the_thread() -> None:
    steps = loader_of(samples_of([50] * 20)).iterate(0, 10**9)
    next(steps)
    assert loader_threads()
    steps.close()
    assert not loader_threads()


def test_what_fails_in_the_thread_is_raised_at_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    split = samples_of([50] * 20)
    bad = int(sample_ids(3, n=len(split), global_batch_size=8, seed=3)[0])
    read = Rows.sample

    def sample(self: Rows, index: int, epoch: int = 0) -> Sample:
        if index == bad:
            raise OSError("the disk went away")
        return read(self, index, epoch)

    monkeypatch.setattr(Rows, "sample", sample)
    steps = loader_of(split).iterate(0, 20)
    assert [next(steps).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="went away"):
        next(steps)
    assert not loader_threads()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_evaluation_sees_every_sample_once(ranks: int) -> None:
    split = samples_of([5, 9, 3, 7, 1, 8], 3)
    labels: list[int] = []
    for rank in range(ranks):
        for batch in iterate_once(split, 2, True, rank, ranks):
            labels += batch.labels[batch.labels >= 0].tolist()
    expected = np.concatenate([split.sample(index).labels for index in range(len(split))])
    assert sorted(labels) == sorted(expected.tolist())


def test_an_evaluation_of_some_samples_takes_evenly_spaced_ones() -> None:
    split = samples_of([5, 9, 3, 7, 1, 8], 3)  # 13 samples
    rows = [row.tolist() for batch in iterate_once(split, 2, True, max_samples=4) for row in batch.labels]
    assert rows == [split.sample(index).labels.tolist() for index in (0, 3, 6, 9)]
    assert len(list(iterate_once(split, 2, True, max_samples=99))) == 7


def test_the_batch_that_takes_most_memory_has_the_longest_samples() -> None:
    split = samples_of([5, 9, 3, 7, 1, 8], 20, cut_documents)
    batch = longest_batch(split, 2, True)
    assert sorted(batch.labels[batch.labels >= 0].tolist()) == sorted(
        [*split.sample(1).labels, *split.sample(5).labels]
    )
    assert longest_batch(samples_of([5, 9, 3], 3), 2, True).tokens.shape == (2, 3)


def test_the_longest_batch_of_mixed_lengths_is_that_of_the_plan() -> None:
    rows = samples_of([50, 90, 30, 70, 11], 10)  # the last alone is shorter
    assert len(rows) == 26
    found = longest_mixed(rows, global_batch_size=8, micro_batch_size=4, seed=3, ranks=1, steps=9)
    assert found is not None and len(rows) - 1 in found[1]
    halves = np.split(loader_of(rows).load(found[0]).ids, (4,))
    assert found[1].tolist() in [half.tolist() for half in halves]
    batch = load_samples(rows, found[1], True)
    assert batch.lengths is not None and len(batch.lengths) == len(found[1])
    assert longest_mixed(rows, global_batch_size=8, micro_batch_size=1, seed=3, ranks=1, steps=9) is None
    even = samples_of([50, 90, 30, 70, 15], 10)
    assert longest_mixed(even, global_batch_size=8, micro_batch_size=4, seed=3, ranks=2, steps=9) is None


@pytest.mark.parametrize("ranks", [1, 2])
def test_of_documents_none_of_the_first_epoch_is_longer(ranks: int) -> None:
    split = samples_of([5, 9, 3, 7, 1, 8, 12, 4, 6, 2, 11], 20, cut_documents)
    found = longest_mixed(split, global_batch_size=4, micro_batch_size=2, seed=3, ranks=ranks, steps=99)
    assert found is not None
    sizes = [
        batch.tokens.shape[1]
        for rank in range(ranks)
        for step in range(3)
        for batch in loader_of(split, 4, 2, rank=rank, ranks=ranks).load(step).micro_batches
    ]
    assert load_samples(split, found[1], True).tokens.shape == (1, max(sizes))

"""Texts that wait are read together, in order; one that is cancelled, fails or is too much costs the others nothing."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.data.samples.sample import Sample
from etude.engine.precision import choose_precision
from etude.serve.engine import BusyError, Limits
from etude.serve.reader import Reader
from tests.serve.serving import PATIENCE_SECONDS

FP32 = choose_precision("fp32", torch.device("cpu"), targets_per_step=1)


class Reading:
    """Gives the number of tokens of each text, once it may; notes the size of each pass."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may = threading.Event()

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        assert self.may.wait(PATIENCE_SECONDS)
        self.sizes.append(len(samples))
        if any(len(sample.tokens) == 13 for sample in samples):
            raise RuntimeError("no memory")
        return torch.tensor([[float(len(sample.tokens))] for sample in samples])


def sample(length: int) -> Sample:
    ids = np.zeros(length, dtype=np.int64)
    return Sample(ids, ids, ids, ids)


@pytest.fixture
def faults() -> list[str]:
    return []


@pytest.fixture
def reader(faults: list[str]) -> Iterator[Reader]:
    made = Reader(FP32, Limits(rows=8), faults.append)
    yield made
    made.close()


def test_what_waits_is_read_side_by_side_and_the_cancelled_not_at_all(reader: Reader) -> None:
    read = Reading()
    first = reader.ask(read, [sample(1)])  # holds the thread
    many = [reader.ask(read, [sample(2), sample(3)]) for _ in range(10)]
    assert many[4][0].cancel()
    read.may.set()
    assert [float(future.result(PATIENCE_SECONDS)[0]) for future in first] == [1.0]
    for at, (two, three) in enumerate(many):
        assert float(three.result(PATIENCE_SECONDS)[0]) == 3.0
        assert two.cancelled() if at == 4 else float(two.result(PATIENCE_SECONDS)[0]) == 2.0
    assert sum(read.sizes) == 20 and max(read.sizes) == 8 and len(read.sizes) <= 4


def test_long_texts_have_passes_of_their_own(reader: Reader) -> None:
    read = Reading()
    read.may.set()
    for future in reader.ask(read, [sample(10_000) for _ in range(3)]):
        assert float(future.result(PATIENCE_SECONDS)[0]) == 10_000
    assert read.sizes == [1, 1, 1]


def test_a_pass_that_fails_is_told_and_the_next_is_read(reader: Reader, faults: list[str]) -> None:
    read = Reading()
    read.may.set()
    (bad,) = reader.ask(read, [sample(13)])
    with pytest.raises(RuntimeError, match="no memory"):
        bad.result(PATIENCE_SECONDS)
    (good,) = reader.ask(read, [sample(2)])
    assert float(good.result(PATIENCE_SECONDS)[0]) == 2.0
    assert "no memory" in faults[0]


def test_more_tokens_than_may_wait_are_told_to_come_again(reader: Reader) -> None:
    read = Reading()
    held = reader.ask(read, [sample(1)])
    large = [sample(1 << 16) for _ in range(64)]
    wait = reader.ask(read, large)
    with pytest.raises(BusyError, match="are waiting already"):
        reader.ask(read, [sample(1)])
    for future in wait:
        future.cancel()
    read.may.set()
    assert held[0].result(PATIENCE_SECONDS) is not None


def test_what_waits_at_the_end_is_cancelled(tmp_path: Path) -> None:
    read, reader = Reading(), Reader(FP32, Limits(rows=1), print)
    reader.ask(read, [sample(1)])
    (left,) = reader.ask(read, [sample(1)])
    closing = threading.Thread(target=reader.close)
    closing.start()
    read.may.set()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive() and (left.cancelled() or left.done())

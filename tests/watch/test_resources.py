"""The use that a run makes of its machine."""

import threading

import psutil
import pytest

from etude.watch.resources import ResourceSampler


def test_memory_is_that_of_this_process_and_cpu_is_counted_since_the_last_reading() -> None:
    sampler = ResourceSampler()
    before = sampler._process.cpu_times()
    sum(number * number for number in range(2_000_000))
    usage = sampler.read()
    spent = sampler._process.cpu_times()
    assert spent.user > before.user and usage.cpu_percent > 0
    assert usage.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    sampler.close()


@pytest.mark.parametrize("index", [None, 9999])
def test_without_such_a_gpu_there_are_no_figures_of_one_and_no_thread(index: int | None) -> None:
    sampler = ResourceSampler(index)
    assert "resources" not in {thread.name for thread in threading.enumerate()}
    usage = sampler.read()
    assert usage.gpu_percent is None and usage.gpu_memory_bytes is None
    sampler.close()
    sampler.close()

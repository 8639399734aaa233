"""The use that a run makes of its machine."""

import mmap
import threading
from pathlib import Path

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


def test_pages_of_files_are_counted_apart(tmp_path: Path) -> None:
    sampler, path = ResourceSampler(), tmp_path / "tokens"
    path.write_bytes(bytes(2**26))
    before = sampler.read()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert sum(data[:: mmap.PAGESIZE]) == 0
        after = sampler.read()
    assert before.mapped_bytes is not None and after.mapped_bytes is not None
    assert after.mapped_bytes - before.mapped_bytes == pytest.approx(2**26, rel=0.1)
    own = [each.rss_bytes - (each.mapped_bytes or 0) for each in (before, after)]
    assert abs(own[1] - own[0]) < 2**24
    sampler.close()


@pytest.mark.parametrize("index", [None, 9999])
def test_without_such_a_gpu_there_are_no_figures_of_one_and_no_thread(index: int | None) -> None:
    sampler = ResourceSampler(index)
    assert "resources" not in {thread.name for thread in threading.enumerate()}
    usage = sampler.read()
    assert usage.gpu_percent is None and usage.gpu_memory_bytes is None
    sampler.close()
    sampler.close()

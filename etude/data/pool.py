"""A function over many batches on all cores, or on a Ray cluster: same results, in the same order."""

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, Literal, TypeVar

from etude.errors import FaultError, InputError

Executor = Literal["local", "ray"]
Given = TypeVar("Given")
Made = TypeVar("Made")

_RAY_WINDOW = 64  # batches that are with Ray at once
_main_lock = threading.Lock()


def map_batches(
    function: Callable[[Given], Made], batches: Iterable[Given], *, executor: Executor = "local"
) -> Iterator[Made]:
    """`function` of each batch, in order; a few batches are under way at once, so memory stays bounded.

    function: of a module of etude, with arguments bound by functools.partial. A single batch is worked on right here.

    Raises: what the function raised; InputError if Ray is asked for and not there; FaultError if a worker was killed.
    """
    batches = iter(batches)
    first = list(islice(batches, 2))
    if executor == "ray":
        yield from _map_ray(function, chain(first, batches))
    elif len(first) < 2 or (os.cpu_count() or 1) < 2:
        yield from map(function, chain(first, batches))
    else:
        yield from _map_local(function, chain(first, batches))


def _map_local(function: Callable[[Given], Made], batches: Iterable[Given]) -> Iterator[Made]:
    # Spawned, since a forked child of a process with threads (torch, tokenizers) may hang.
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[Any] = deque()
    try:
        for batch in batches:
            with _without_main():
                waiting.append(pool.submit(function, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise FaultError(
            "a process that reads the data was killed, most likely for want of memory; "
            "close other programs and run the same command again"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned child would run the caller's script again; what it has to do is all in this package."""
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _map_ray(function: Callable[[Given], Made], batches: Iterator[Given]) -> Iterator[Made]:
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError('data.executor = "ray" needs Ray; pip install "etude-workbench[ray]"') from None

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["index"], "made": function(row["given"])}

    ray.data.DataContext.get_current().enable_progress_bars = False
    while window := list(islice(batches, _RAY_WINDOW)):
        given = ray.data.from_items([{"index": index, "given": batch} for index, batch in enumerate(window)])
        made = given.map(apply).take_all()
        yield from (row["made"] for row in sorted(made, key=lambda row: row["index"]))

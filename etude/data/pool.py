"""A function over many batches on all cores, or on a Ray cluster: same results, in the same order.

The processes of a pool are this program's own: the pickles between them go through pipes that nobody else
has. Those of Ray go over the network of its cluster.
"""

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
_start_lock = threading.Lock()


def map_batches(
    function: Callable[[Given], Made], batches: Iterable[Given], *, executor: Executor = "local"
) -> Iterator[Made]:
    """`function` of each batch, in order; a few batches are under way at once, so memory stays bounded.

    function: of a module of etude, with arguments bound by functools.partial. A single batch is worked on
    right here.

    Raises: what the function raised; InputError if Ray is asked for and not there; FaultError if a worker was
    killed.
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
    with _plain_start():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    waiting: deque[Any] = deque()
    try:
        for batch in batches:
            with _plain_start():
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
def _plain_start() -> Iterator[None]:
    """Start processes without the caller's script and the current folder, which may be a stranger's.

    A spawned child would run the one again, and look for modules in the other first.
    """
    with _start_lock:
        main, safe = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
        sys.modules["__main__"] = types.ModuleType("__main__")
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if safe is None:
                del os.environ["PYTHONSAFEPATH"]
            else:
                os.environ["PYTHONSAFEPATH"] = safe


def _end_with_parent() -> None:
    """End a worker when the process that started it is gone, which its queues do not tell."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _map_ray(function: Callable[[Given], Made], batches: Iterator[Given]) -> Iterator[Made]:
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError('data.executor = "ray" needs Ray; pip install "etude-workbench[ray]"') from None
    if not (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        raise InputError(
            'data.executor = "ray" joins a cluster that runs: set RAY_ADDRESS, or call ray.init in Python. '
            'One started here would listen on every address of this machine; here use data.executor = "local"'
        )

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["index"], "made": function(row["given"])}

    ray.data.DataContext.get_current().enable_progress_bars = False
    while window := list(islice(batches, _RAY_WINDOW)):
        given = ray.data.from_items([{"index": index, "given": batch} for index, batch in enumerate(window)])
        made = given.map(apply).take_all()
        yield from (row["made"] for row in sorted(made, key=lambda row: row["index"]))

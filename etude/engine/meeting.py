"""A place of their own for the ranks of one attempt, in a store that has words of earlier ones."""

import time
import uuid
from typing import Any

import torch.distributed as dist

_LOOK_SECONDS = 0.05


def meet(store: Any, rank: int, size: int) -> Any:
    """A part of a store that the ranks of this attempt alone know.

    torchrun keeps one store over all restarts of its ranks, and its count of them differs from machine to
    machine. So each rank leaves a new name, and rank 0 answers it with that of the part.
    Raises: TimeoutError if not all come within the time limit of the store; RuntimeError if it is gone.
    """
    mine, end = uuid.uuid4().hex, time.monotonic() + store.timeout.total_seconds()
    if rank:
        store.set(_of("name", rank), mine)
        store.compare_set(_of("answer", rank), "", "")
        while True:
            name, _, part = store.get(_of("answer", rank)).decode().partition(" ")
            if name == mine:
                break
            _look_again(end, "rank 0")
        own = dist.PrefixStore(part, store)  # type: ignore[attr-defined]
        own.set(_of("here", rank), "")
        return own
    own = dist.PrefixStore(mine, store)  # type: ignore[attr-defined]
    absent = set(range(1, size))
    for each in absent:
        store.compare_set(_of("name", each), "", "")
    answered = dict.fromkeys(absent, "")
    while absent:
        for each, name in zip(sorted(absent), store.multi_get([_of("name", one) for one in sorted(absent)])):
            if (name := name.decode()) != answered[each]:  # one of an attempt before, perhaps
                store.set(_of("answer", each), f"{name} {mine}")
                answered[each] = name
        absent = {each for each in absent if not own.check([_of("here", each)])}
        if absent:
            _look_again(end, f"rank {min(absent)}")
    return own


def _look_again(end: float, awaited: str) -> None:
    if time.monotonic() > end:
        raise TimeoutError(f"{awaited} has not come")
    time.sleep(_LOOK_SECONDS)


def _of(what: str, rank: int) -> str:
    return f"{what} of rank {rank}"

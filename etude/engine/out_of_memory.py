"""Shortages of memory: told apart from other errors, and cleared away so that the work can go on."""

import gc
import re
import resource
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import psutil
import torch
import torch.distributed as dist

from etude.data.batch import NumpyBatch, halves

# torch has an error of its own for its allocator on a GPU only; the CPU's, libraries' and C++'s are words.
_SAID = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|^std::bad_alloc"
    r"|^(CUDA|HIP|XPU|MPS)\b[^:]*(: | )out of memory|CU(BLAS|DNN|SOLVER)_STATUS_ALLOC_FAILED"
)

Whole = TypeVar("Whole")
Done = TypeVar("Done")
SMALLER = "an [adapter], a smaller model or more memory"


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory could not be had, on a GPU or the CPU, and the process can go on.

    A failed exchange of ranks is none: their group is broken.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    is_of_ranks = dist.is_available() and isinstance(error, dist.DistError)
    return isinstance(error, RuntimeError) and not is_of_ranks and bool(_SAID.search(str(error)))


def release(error: BaseException) -> None:
    """Let go of the tensors that an error holds by the frames it came through, and of the GPU's cache."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__, seen = None, seen.__cause__ or seen.__context__
    gc.collect()  # frames that hold the error which holds them
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class InParts(Generic[Whole]):
    """Work that is done on halves, and on halves of these, where the whole has no memory.

    halve  returns the halves, or what it was given if that has no parts
    size   of a whole or a part; what was too large once is not tried again
    """

    def __init__(self, halve: Callable[[Whole], list[Whole]], size: Callable[[Whole], int]) -> None:
        self._halve, self._size, self._too_large = halve, size, 0

    def do(self, whole: Whole, work: Callable[[Whole], Done]) -> list[Done]:
        """The results of the parts, in order. Raises: what the work on the smallest part raised."""
        size = self._size(whole)
        if self._too_large and size >= self._too_large and len(parts := self._halve(whole)) > 1:
            return [result for part in parts for result in self.do(part, work)]
        try:
            return [work(whole)]
        except Exception as error:
            parts = self._halve(whole) if is_out_of_memory(error) else []
            if len(parts) < 2:
                raise
            release(error)
            self._too_large = size
        return [result for part in parts for result in self.do(part, work)]


def batches_in_parts() -> InParts[NumpyBatch]:
    """Work on batches, in parts of their samples where memory is short."""
    return InParts(halves, lambda batch: batch.tokens.size)


def rows_in_parts() -> InParts[list[Any]]:
    """Work on lists of rows, in parts of them where memory is short."""
    return InParts(lambda rows: [rows[: len(rows) // 2], rows[len(rows) // 2 :]] if rows[1:] else [rows], len)


def room_for(device: torch.device, weights: int) -> int:
    """Bytes for a step with its weights, which are there; on a CPU without what else the process has."""
    if device.type == "cuda":
        return capacity(device)
    held, limit = psutil.Process().memory_info(), resource.getrlimit(resource.RLIMIT_AS)[0]
    room = psutil.virtual_memory().total - held.rss
    return weights + (room if limit == resource.RLIM_INFINITY else min(room, limit - held.vms))


def capacity(device: torch.device) -> int:
    """Bytes that tensors of this process may take on a device at most."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    total = psutil.virtual_memory().total
    return total if limit == resource.RLIM_INFINITY else min(total, limit)

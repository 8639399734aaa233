"""Limits on the memory that a library allocates for a stranger's file; a rest for the garbage collector."""

import contextlib
import gc
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def limited_memory(most_bytes: int) -> Iterator[None]:
    """Let this process map so much more memory in the block; beyond it, allocations raise MemoryError.

    Without /proc, as on macOS, there is no such limit.
    """
    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    wanted = min([psutil.Process().memory_info().vms + most_bytes, *limits])
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through all objects as they grow more, and once at the end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.unfreeze()  # what was made is among the oldest objects now, which are seldom looked through
            gc.enable()

"""One process as a rank of many: its exchanges only pretend, and leave what they should fill as it is."""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist

from etude.engine.world import World


@contextlib.contextmanager
def as_rank(rank: int, ranks: int) -> Iterator[World]:
    """The world of a rank whose others are not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        yield World(torch.device("cpu"), rank, ranks)
    finally:
        dist.destroy_process_group()

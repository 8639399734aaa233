"""The ways that weights, gradients and optimizer state lie over the ranks of a run.

Of `Replicas` each rank holds all, of `Shards` (shards.py) some rows of each tensor.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from etude.data.batch import NumpyBatch
from etude.engine.out_of_memory import SMALLER, is_out_of_memory
from etude.engine.world import World
from etude.errors import FaultError
from etude.text import rough_size

BUCKET_BYTES = 25 << 20


class Layout(Protocol):
    """A way that weights, gradients and optimizer state lie over ranks; one rank alone is `Replicas`, too."""

    world: World

    def passes(self, batches: Sequence[NumpyBatch]) -> Iterable[tuple[NumpyBatch, bool]]:
        """The micro-batches of the passes that this rank makes in a step; False: one that does not count."""
        ...

    def begin_last(self) -> None:
        """Expect the gradients of the step: the backward pass that follows is the last on this rank."""
        ...

    def joined(self) -> AbstractContextManager[None]:
        """Around the passes of a step."""
        ...

    def take(self) -> None:
        """Bring the gradients of the passes to the parameters that the optimizer knows."""
        ...

    def finish(self) -> None:
        """Add up what is left to be added up over the ranks. Raises: LostRankError; FaultError."""
        ...

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        """The norm () of all gradients."""
        ...

    def is_any(self, flag: Tensor) -> Tensor:
        """True, bool (), if a flag () of what a rank holds is on somewhere."""
        ...


class Replicas(AbstractContextManager["Replicas"]):
    """Adds up gradients of ranks in buckets, each as soon as the last backward pass of a step has made it.

    Buckets go from the last parameters to the first, as a backward pass does, in the same order on all ranks,
    so that the same ranks give the same bits. The gradients become views of the buckets.

    bucket_bytes: the most that one exchange adds up, but for one larger parameter.
    """

    def __init__(self, parameters: Sequence[Tensor], world: World, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.world = world
        self._buckets = list(_split(parameters, bucket_bytes)) if world.size > 1 else []
        self._missing: dict[int, int] = {}  # gradients that buckets still wait for, while a last pass runs
        self._waits: list[Callable[[], None]] = []  # of exchanges that have begun
        self._handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _, number=number: self._note(number)
            )
            for number, bucket in enumerate(self._buckets)
            for parameter in bucket
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def passes(self, batches: Sequence[NumpyBatch]) -> Iterable[tuple[NumpyBatch, bool]]:
        """As many as this rank has micro-batches."""
        return ((each, True) for each in batches)

    def joined(self) -> AbstractContextManager[None]:
        """Nothing: no rank needs another in a pass."""
        return nullcontext()

    def take(self) -> None:
        """Nothing: they are there."""

    def norm(self, grads: Sequence[Tensor]) -> Tensor:
        """The norm () of gradients, which are those of all ranks."""
        norm: Tensor = torch.nn.utils.get_total_norm(grads)
        return norm

    def is_any(self, flag: Tensor) -> Tensor:
        """The flag: all ranks hold the same."""
        return flag

    def begin_last(self) -> None:
        """Expect the gradients of the step: the backward pass that follows is the last on this rank."""
        self._missing = {number: len(bucket) for number, bucket in enumerate(self._buckets)}

    def finish(self) -> None:
        """Add up what is left, with zeros for what this rank has not, and wait for all.

        Raises: LostRankError; FaultError if there is no memory for it.
        """
        try:
            while len(self._waits) < len(self._buckets):
                self._begin_next()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            size = rough_size(sum(each.nbytes for each in self._buckets[len(self._waits)]))
            what = f"for a bucket of {size} of the gradients that ranks add up"
            raise FaultError(f"rank {self.world.rank} has no memory {what}; it takes {SMALLER}") from None
        for wait in self._waits:
            wait()
        self._waits.clear()
        self._missing.clear()

    def _note(self, number: int) -> None:
        """Note a gradient of a bucket; all that are complete begin their exchange, in their order."""
        if not self._missing:
            return
        self._missing[number] -= 1
        while (place := len(self._waits)) < len(self._buckets) and not self._missing[place]:
            self._begin_next()

    def _begin_next(self) -> None:
        bucket = self._buckets[len(self._waits)]
        flat = torch.empty(sum(map(Tensor.numel, bucket)), dtype=bucket[0].dtype, device=bucket[0].device)
        for parameter, part in zip(bucket, torch.split(flat, [each.numel() for each in bucket])):
            view = part.view_as(parameter)
            view.copy_(parameter.grad) if parameter.grad is not None else view.zero_()
            parameter.grad = view
        self._waits.append(self.world.begin_exchange(flat))


def _split(parameters: Sequence[Tensor], most_bytes: int) -> Iterator[list[Tensor]]:
    """Parameters of one dtype and device, from the last to the first, up to so many bytes together."""
    bucket: list[Tensor] = []
    for each in reversed(parameters):
        is_alike = bucket and (each.dtype, each.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and not (is_alike and sum(one.nbytes for one in bucket) + each.nbytes <= most_bytes):
            yield bucket
            bucket = []
        bucket.append(each)
    if bucket:
        yield bucket

"""Devices and ranks. One process is a world of size 1."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from etude.errors import InputError

# Rank 0 alone makes samples, baselines and reports, while the others wait for it; a rank that ended is noticed at once.
_PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class World:
    """This process among those that share the run."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors over all ranks, in place, in one exchange, in the widest of their dtypes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether some rank says so; all ranks must ask at the same place."""
        if self.size == 1:
            return flag
        votes = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(votes)
        return bool(votes)

    def least(self, value: int) -> int:
        """The smallest number that a rank says."""
        if self.size == 1:
            return value
        box = torch.tensor(value, device=self.device)
        dist.all_reduce(box, dist.ReduceOp.MIN)
        return int(box)

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.size > 1:
            dist.barrier()

    def share(self, text: str) -> str:
        """The text of rank 0, on every rank."""
        if self.size == 1:
            return text
        box = torch.zeros(4096, dtype=torch.uint8, device=self.device)
        if self.is_main:
            data = text.encode()[: len(box)]
            box[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.device)
        dist.broadcast(box, 0)
        return bytes(box.cpu().tolist()).rstrip(b"\0").decode(errors="ignore")

    def leave(self, *, together: bool = True) -> None:
        """Leave the ranks; `together` waits until all are done, so that none is ended while it still writes."""
        if dist.is_initialized():
            if together:
                dist.barrier()
            dist.destroy_process_group()


def join_world(device: torch.device) -> World:
    """Join the ranks that torchrun started, or be alone. Raises: InputError if there are fewer GPUs than ranks."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device)
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"rank {rank} finds {torch.cuda.device_count()} GPUs on its machine; use fewer --devices")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    return World(device, rank, size)


def choose_device(wanted: str) -> torch.device:
    """The device a recipe asks for; auto takes cuda, else mps, else cpu. Raises: InputError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[wanted]:
        have = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f'train.device is "{wanted}", but this machine and this torch have {have}; try "auto"')
    return torch.device(wanted)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of square matrix products: what the device can do at best, measured.

    Takes some tenths of a second. The model's share of it is what the records call MFU.
    """
    rate = 0.0
    # A small product first: the large one would take minutes where a format is only emulated.
    for size in (256, 1024) if device.type == "cpu" else (1024, 8192):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = min(_time(lambda left=left, right=right: left @ right, device) for _ in range(12))  # type: ignore[misc]
        rate = max(rate, 2 * size**3 / seconds)
        if seconds > 0.005:
            break
    return rate


def _time(action: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started

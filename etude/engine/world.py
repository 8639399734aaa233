"""Devices and ranks. One process is a world of size 1."""

import contextlib
import ctypes
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from etude.control.ranks import IDLE_SECONDS, SILENCE_SECONDS, Place, read_place, watch_main_thread
from etude.engine.heartbeat import Heartbeat, Launched, Others
from etude.engine.meeting import open_store
from etude.errors import FaultError, InputError, LostRankError
from etude.interruption import Abandoned
from etude.text import plural

_LOOK_SECONDS, _EXCHANGE_LOOK = 0.02, timedelta(seconds=0.5)
_POINT_SECONDS = 0.25  # between looks of a rank that works at the others
_MOST_SAID = 300  # characters of an error that the others are told


@dataclass(frozen=True)
class World:
    """This process among those that share the run.

    store    where ranks leave word for each other; None for a world of size 1
    others   tell that a rank is lost
    devices  their types, by rank; empty before they are known
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    store: Any = None  # torch's types leave its stores out
    others: Others | None = None
    devices: Sequence[str] = ()
    _left: list[str] = field(default_factory=list)  # works that the ranks left together, before their end
    _waits: list[Callable[[], None]] = field(default_factory=list)  # in the place of `meet`

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors of the device over all ranks, in place, in one exchange, in their widest dtype.

        The ranks must come within minutes of each other. Raises: LostRankError.
        """
        if self.size > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            self.begin_exchange(flat)()
            for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))

    def least(self, number: int) -> int:
        """The least of the numbers of all ranks, which come within minutes. Raises: LostRankError."""
        flat = torch.tensor([number], device=self.device)
        self.begin_exchange(flat, dist.ReduceOp.MIN)()
        return int(flat.item())

    def begin_exchange(self, flat: torch.Tensor, reduction: Any = dist.ReduceOp.SUM) -> Callable[[], None]:
        """Begin to add up one tensor over all ranks, in place; returns the wait for its end.

        Raises: LostRankError, as the wait does.
        """

        def wait() -> None:
            with self.exchange():
                if flat.is_cuda:  # its stream waits, and a lost rank breaks off what is under way
                    work.wait()
                while not flat.is_cuda and not self._has_ended(work):
                    self._require_others()

        with self.exchange():
            work = dist.all_reduce(flat, reduction, async_op=True)
        return wait

    def total(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors of the CPU over all ranks, in place; each rank comes when it has done its part.

        They may be float64: a single process does not move them to its device, which may have none (mps).
        """
        if self.size == 1:
            return
        self.wait()
        moved = [tensor.to(self.device, copy=True) for tensor in tensors]
        self.sum(moved)
        for tensor, result in zip(tensors, moved):
            tensor.copy_(result)

    def pass_on(self, word: str | None) -> str | None:
        """Leave a word for rank 0, which gets its own or that of another rank; nobody waits."""
        if self.store is None or (self.is_main and word):
            return word
        with self.exchange():
            if word:
                self.store.set("word", word)
            elif self.is_main and self.store.check(["word"]):
                return str(self.store.get("word").decode())
        return word

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order, on every rank: anything that JSON holds, which stays."""
        if self.store is None:
            return [value]
        with self.exchange():
            turn = self.store.add(f"gathered by rank {self.rank}", 1)
            self.store.set(f"value {turn} of rank {self.rank}", json.dumps(value))
            self.wait()
            return [json.loads(self.store.get(f"value {turn} of rank {rank}")) for rank in range(self.size)]

    def tell_shortage(self) -> None:
        """Tell the others that this rank ends for lack of memory."""
        if self.store is not None:
            with contextlib.suppress(RuntimeError):
                self.store.set("shortage", "")

    def has_shortage(self) -> bool:
        """True if a rank has told that it ends for lack of memory."""
        with contextlib.suppress(RuntimeError):  # the store went with a rank
            return self.store is not None and bool(self.store.check(["shortage"]))
        return False

    def wait(self) -> None:
        """Go on when all ranks are here, however long one of them works alone."""
        wait = self._waits[-1] if self._waits else self.meet
        wait()

    @contextlib.contextmanager
    def waiting(self, wait: Callable[[], None]) -> Iterator[None]:
        """While entered, a rank that waits for the others does so by `wait`, which may do work for them."""
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.remove(wait)

    def meet(self) -> None:
        """Go on when all ranks are here, and do nothing meanwhile."""
        if self.store is None:
            return
        with self.exchange():
            turn, others = divmod(self.store.add(f"arrivals{self._era}", 1) - 1, self.size)
            if others == self.size - 1:
                self.store.set(f"all are here {turn}{self._era}", "")
                self.store.delete_key(
                    f"all are here {turn - 1}{self._era}"
                )  # all have seen it who came again
            self._await(f"all are here {turn}{self._era}")

    def agree(self, value: Any) -> Any:
        """The value of rank 0 on every rank, when rank 0 has it: anything that JSON holds, of any length."""
        if self.store is None:
            return value
        if self._waits:  # rank 0 may need the others until it has the value
            self.wait()
        with self.exchange():
            key = f"value {self.store.add(f'values of rank {self.rank}{self._era}', 1)}{self._era}"
            if self.is_main:
                self.store.set(key, json.dumps(value))
            self._await(key)
            value = json.loads(self.store.get(key))
            if self.store.add(f"readers of {key}", 1) == self.size:
                for read in (key, f"readers of {key}"):
                    self.store.delete_key(read)
            return value

    @contextlib.contextmanager
    def together(self, is_unwanted: Callable[[], bool]) -> Iterator[Callable[[], None]]:
        """Around work that all ranks finish, or all leave; yields the check that may leave it.

        Raises: Abandoned on every rank, once it is unwanted on one of them before all are through;
            FaultError on the others, where one fails.
        """

        def leave(why: str) -> None:
            if self.store is not None:
                with self.exchange():
                    if not self.store.check([f"left{self._era}"]):
                        self.store.set(f"left{self._era}", why)

        def check() -> None:
            if is_unwanted():
                leave("")
                raise Abandoned
            if self.store is not None and time.monotonic() - looked[0] > _POINT_SECONDS:
                looked[0] = time.monotonic()
                self._require_others()
                with self.exchange():
                    self._follow_those_who_left()

        looked = [time.monotonic()]
        try:
            check()
            yield check
            self.wait()
        except LostRankError:
            raise
        except (Abandoned, Exception) as error:
            if not isinstance(error, Abandoned):
                leave(f"rank {self.rank} failed: {type(error).__name__}: {str(error)[:_MOST_SAID]}")
            self._left.append("")  # what waits for a rank by a name of before is passed over by all
            raise

    @property
    def _era(self) -> str:
        """The end of the names by which ranks wait for each other: new ones after each work they left."""
        return f" of {len(self._left)}" if self._left else ""

    def leave(self, error: BaseException | None = None) -> None:
        """Leave the ranks; without an error torchrun's are left by all at once, as rank 0 holds their store.

        Those that etude started need nobody at their end: a rank that is killed then costs no other its work.
        """
        if self.store is not None:
            if error is None and not isinstance(self.store, dist.FileStore):  # type: ignore[attr-defined]
                self.wait()
            if self.others is not None:
                self.others.end(error)
            if isinstance(error, Exception):  # gloo's end waits for what is under way, and so for a lost rank
                _break_off()
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))
            else:
                dist.destroy_process_group()

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Around what fails when another rank has ended: torch has no error of its own for it."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0].partition("] ")[2] or str(error).splitlines()[0]
            if "alloc" in reason or "out of memory" in str(error):  # the ranks cannot go on together
                raise FaultError(
                    f"this rank had no memory for the exchange with others ({reason[:100]}); with a smaller "
                    "train.micro_batch_size the same command continues from the last checkpoint"
                ) from error
            raise self.lost(reason) from error

    def lost(self, reason: str) -> LostRankError:
        """The error of an exchange that failed; it names the rank that it failed for, where that is known."""
        cause = self.others.why_lost(waits=True) if self.others else None
        cause = cause or f"another rank of this run ended or does not answer ({reason[:100]})"
        return LostRankError(f"{cause}; the same command continues")

    def _require_others(self) -> None:
        """Raises: LostRankError once a rank is lost."""
        if self.others is not None and (cause := self.others.why_lost()):
            raise LostRankError(f"{cause}; the same command continues")

    @staticmethod
    def _has_ended(work: Any) -> bool:
        """Wait for a while; True if an exchange has ended, with the error that it has."""
        try:
            work.wait(_EXCHANGE_LOOK)
        except RuntimeError:
            if work.is_completed():
                raise
            return False
        return True

    def _follow_those_who_left(self, unless: str | None = None) -> None:
        """Raises: Abandoned or FaultError as another rank did, unless it passed a wait for a key before."""
        left = f"left{self._era}"
        if self.store.check([left]) and not (unless and self.store.check([unless])):
            why = self.store.get(left).decode("utf-8", "replace")
            raise FaultError(why) if why else Abandoned

    def _await(self, key: str) -> None:
        """Look again and again: a wait inside torch would keep signals from being answered.

        Raises: Abandoned once another rank has left what the ranks do together; LostRankError.

        Rank 0 alone makes samples, baselines and reports, for as long as it works; one that hangs is ended.
        """
        assert self.store is not None
        seconds = _LOOK_SECONDS / 64  # most come at once; some work for hours
        while not self.store.check([key]):
            self._follow_those_who_left(unless=key)
            self._require_others()
            time.sleep(seconds)
            seconds = min(2 * seconds, _LOOK_SECONDS)


def join_world(
    device: torch.device,
    *,
    idle_seconds: float = IDLE_SECONDS,
    silence_seconds: float = SILENCE_SECONDS,
    sum_seconds: float = IDLE_SECONDS,
) -> World:
    """Join the ranks of this run, or be alone.

    Of a rank of torchrun, which does not watch it: idle_seconds: it hangs if it does nothing for so long;
    silence_seconds: it is lost if it says nothing for so long. sum_seconds: for a rank to come to a sum.

    Raises: InputError if the environment or the devices do not suit; LostRankError.
    """
    place = read_place()
    if place.size == 1:
        return World(device)
    if device.type == "mps":
        raise InputError('several ranks need train.device = "cuda" or "cpu"; on mps use one device')
    if device.type == "cuda":
        device = _take_gpu(place)
    store = open_store(place)
    others: Others
    beat = None
    if place.folder is None:
        beat = others = Heartbeat(store, place.rank, place.size, silence_seconds, _break_off)
        watch_main_thread(place.rank, beat.lose, idle_seconds)
    else:
        others = Launched(place.folder)
    world = World(device, place.rank, place.size, store, others)
    world.wait()  # one prepares the data while another waits for it
    if beat is not None:
        beat.start()
    with world.exchange():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", store=world.store, rank=place.rank,
            world_size=place.size, timeout=timedelta(seconds=sum_seconds),
        )  # fmt: skip
    return world


def _take_gpu(place: Place) -> torch.device:
    """The GPU of a rank. Raises: InputError if there is none, or no NCCL."""
    if not dist.is_nccl_available():
        raise InputError(
            f"this torch ({torch.__version__}) has no NCCL, by which ranks on GPUs exchange; install one "
            "that has it (on Linux that of pypi.org), or use one device"
        )
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        here = plural(count, "GPU")
        raise InputError(f"rank {place.rank} finds {here} on its machine; use fewer --devices")
    device = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(device)
    return device


def _break_off() -> None:
    """Break off the exchanges that are under way; gloo goes on to wait."""
    if dist.group.WORLD is not None:
        dist.group.WORLD.abort()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


_MEASURE_SECONDS = 0.1


def measure_matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of square matrix products: what the device can do at best, measured.

    Takes about two tenths of a second. The model's share of it is what the records call MFU.
    """
    rate = 0.0
    # A small product first: the large one would take minutes where a format is only emulated.
    for size in (256, 1024) if device.type == "cpu" else (1024, 8192):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        taken = list[float]()
        while len(taken) < 4 or (len(taken) < 12 and sum(taken) < _MEASURE_SECONDS):
            taken.append(_time(lambda left=left, right=right: left @ right, device))  # type: ignore[misc]
        seconds = min(taken)
        rate = max(rate, 2 * size**3 / max(seconds, 1e-9))  # a clock may stand still
        if seconds > 0.005:
            break
    return rate


def _time(action: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started

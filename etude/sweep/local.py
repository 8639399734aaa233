"""Processes of stages on this machine, several on each device."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil

from etude.launch.ranks import RESUMABLE
from etude.processes import python_command, python_environment
from etude.sweep.dispatch import Device, Joined, Lost
from etude.sweep.grid import Sweep
from etude.sweep.starter import CAN_FORK, Starter, modules_of

_SHARE_OF_GPU = 8  # trials at once on a GPU at most, where nobody says another number


@dataclass(frozen=True)
class Exit:
    """The end of the process of a stage.

    code    its exit code; negative for the signal that ended it; None where it was lost with what it ran on
    reason  why, where the code does not tell
    """

    name: str
    code: int | None
    reason: str = ""


class LocalProcesses:
    """Processes of stages on this machine, each in a process group of its own.

    They are forks of a starter, and children of this process where that cannot be. On a CPU the starter loads
    its modules from now on, while the trials are measured.

    are_known: the memory of all trials is, so that several share a GPU as far as they fit
    """

    are_known = False

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starter: Starter | None = None
        if CAN_FORK and not _uses_gpus(sweep):
            self._starter = self._open_starter()

    @cached_property
    def devices(self) -> list[Device]:
        """The devices that trials share, by what is known when it is first asked for."""
        return find_devices(self._sweep, are_known=self.are_known)

    @cached_property
    def _environment(self) -> dict[str, str]:
        threads = max((os.cpu_count() or 1) // self.devices[0].at_once, 1)
        return {"OMP_NUM_THREADS": str(threads), **python_environment()}

    def start(self, name: str, device: Device, words: Sequence[str], log: Path) -> None:
        """Start `etude WORDS` for a stage on a device; what it says is added to a log."""
        own = {}
        if device.name.startswith("cuda:"):
            own["CUDA_VISIBLE_DEVICES"] = device.name.removeprefix("cuda:")
        if CAN_FORK:
            self._starter = self._starter or self._open_starter()
            self._starter.start(name, words, log, own)
        else:
            self._start_anew(name, words, log, own)

    def signal(self, number: int) -> None:
        """Send a signal to all that run."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(number)
        if self._starter is not None:
            self._starter.signal(number)

    def poll(self, seconds: float = 0.0) -> list[Exit | Joined | Lost]:
        """The processes that have ended since the last call; waits so long for a fork."""
        forks = self._poll_starter(seconds)
        ended = [(name, process) for name, process in self._running.items() if process.poll() is not None]
        for name, _ in ended:
            del self._running[name]
        return [*(Exit(name, process.returncode) for name, process in ended), *forks]

    def close(self) -> None:
        """Let go of what is needed to start more; what runs goes on."""
        if self._starter is not None:
            self._starter.close()
            self._starter = None

    def _open_starter(self) -> Starter:
        return Starter(self._environment, modules_of(trial.recipe for trial in self._sweep.trials))

    def _poll_starter(self, seconds: float) -> list[Exit]:
        """The forks that have ended; those of a starter that died go on, and are to be waited for."""
        if self._starter is None:
            time.sleep(seconds)
            return []
        ended, is_alive = self._starter.poll(seconds)
        found = [Exit(name, code) for name, code in ended.items()]
        if not is_alive:
            starter, self._starter = self._starter, None
            found += [Exit(name, RESUMABLE) for name in starter.running]
            for name, request in starter.waiting.items():
                self._start_anew(name, request["words"], Path(request["log"]), request["environment"])
            starter.close()
        return found

    def _start_anew(self, name: str, words: Sequence[str], log: Path, own: Mapping[str, str]) -> None:
        with log.open("ab") as file:
            self._running[name] = subprocess.Popen(
                python_command("etude", *words), env={**self._environment, **own}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, process_group=0,
            )  # fmt: skip


def find_devices(sweep: Sweep, *, are_known: bool = False) -> list[Device]:
    """The devices of this machine that trials share: its GPUs, or the machine itself where they use none."""
    resources = sweep.file.resources
    memory = resources.memory_bytes
    if _uses_gpus(sweep):
        import torch

        return [
            Device(
                f"cuda:{index}",
                resources.at_once or (_SHARE_OF_GPU if are_known else 1),
                memory or int(0.95 * torch.cuda.get_device_properties(index).total_memory),
            )
            for index in range(torch.cuda.device_count())
        ]
    at_once = resources.at_once or max((os.cpu_count() or 1) // 2, 1)
    return [Device("cpu", at_once, memory or int(0.9 * psutil.virtual_memory().total))]


def _uses_gpus(sweep: Sweep) -> bool:
    if not {trial.recipe.train.device for trial in sweep.trials} & {"auto", "cuda"}:
        return False
    import torch

    return torch.cuda.is_available()

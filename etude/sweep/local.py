"""Processes of stages on this machine, several on each device."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from etude.processes import python_command, python_environment
from etude.sweep.dispatch import Device, Joined, Lost
from etude.sweep.grid import Sweep

_SHARE_OF_GPU = 8  # trials at once on a GPU at most, where nobody says another number


@dataclass(frozen=True)
class Exit:
    """The end of the process of a stage.

    code    its exit code; negative for the signal that ended it
    reason  why, where the code does not tell
    """

    name: str
    code: int
    reason: str = ""


class LocalProcesses:
    """Processes of stages as children of this one, each in a process group of its own."""

    def __init__(self, sweep: Sweep, *, are_known: bool = False) -> None:
        """are_known: the memory of all trials is, so that several share a GPU as far as they fit."""
        self.devices = find_devices(sweep, are_known=are_known)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, device: Device, words: Sequence[str], log: Path) -> None:
        """Start `etude WORDS` for a stage on a device; what it says is added to a log."""
        environment = {
            "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // device.at_once, 1)),
            **python_environment(),
        }
        if device.name.startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = device.name.removeprefix("cuda:")
        with log.open("ab") as file:
            self._running[name] = subprocess.Popen(
                python_command("etude", *words), env=environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, process_group=0,
            )  # fmt: skip

    def signal(self, number: int) -> None:
        """Send a signal to all that run."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(number)

    def poll(self) -> list[Exit | Joined | Lost]:
        """The processes that have ended and the devices that have come and gone since the last call."""
        ended = [(name, process) for name, process in self._running.items() if process.poll() is not None]
        for name, _ in ended:
            del self._running[name]
        return [Exit(name, process.returncode) for name, process in ended]


def find_devices(sweep: Sweep, *, are_known: bool = False) -> list[Device]:
    """The devices of this machine that trials share: its GPUs, or the machine itself where they use none."""
    resources = sweep.file.resources
    wanted = {trial.recipe.train.device for trial in sweep.trials}
    memory = int(resources.memory_gb * 1e9) if resources.memory_gb else None
    if wanted & {"auto", "cuda"} and torch.cuda.is_available():
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

"""The part of a sweep that runs on each node of a Ray cluster, in Ray's workers and without torch.

Ray passes the names of these functions, plain words and plain numbers, and nothing else.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import etude
from etude.control.ranks import SOCKET
from etude.control.signals import SIGNALS
from etude.errors import InputError
from etude.processes import python_command
from etude.records.lease import is_locked, read_lease
from etude.sweep.common_starter import start_stage


def look(folder: str, lease: dict[str, Any], version: str, current: str) -> str | int:
    """A problem that keeps this node from a sweep, in words; else bytes of its smallest GPU, 0 without one.

    folder, lease  the sweep folder, which its controller holds, and its lease as the controller reads it
    version        of the controller's etude
    current        the folder in which the controller was started
    """
    if etude.__version__ != version:
        return f"it has etude {etude.__version__}, and the controller {version}; install the same there"
    try:
        found: object = read_lease(Path(folder))
    except InputError:
        found = None
    if found != lease:
        return f"it does not see {folder}; the sweep folder must lie on storage that all nodes share"
    if not is_locked(Path(folder)):
        return f"a lock in {folder} does not hold there; mount the storage so that all nodes share its locks"
    if not os.access(Path(folder) / "runs", os.W_OK):
        return f"it may not write into {folder}/runs; give that user the right to"
    if not Path(current).is_dir():
        return f"it has no folder {current}, where the sweep was started; start it in one that all nodes have"
    return _gpu_bytes()


def train(node: str, words: Sequence[str], log: str, current: str, threads: int) -> int:
    """Run `etude WORDS` in a process of its own; its exit code, negative for the signal that ended it.

    Ray interrupts this function to end a stage early: it saves and stops. The process ends at once when this
    one does, however that happens.
    """
    environment = {**_environment(), "OMP_NUM_THREADS": str(threads)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the process can answer them
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process: _Process | None = start_stage(
                node, words, log=log, current=current, environment=environment, beats=theirs
            )
            if process is None:
                environment[SOCKET] = str(theirs.fileno())
                with Path(log).open("ab") as file:
                    process = subprocess.Popen(
                        python_command("etude", *words), cwd=current, stdin=subprocess.DEVNULL, stdout=file,
                        stderr=file, env=environment, pass_fds=[theirs.fileno()], process_group=0,
                    )  # fmt: skip
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return _wait(process, ours)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(Protocol):
    def send_signal(self, number: int) -> None: ...

    def wait(self) -> int: ...


def _wait(process: _Process, ours: socket.socket) -> int:
    """Hear the beats of a process until it has ended, and pass interruptions on to it."""
    while True:
        try:
            while ours.recv(4096):
                pass
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
        except ConnectionError:
            return process.wait()
        else:
            return process.wait()


def _environment() -> dict[str, str]:
    """The environment of this node, without what Ray adds for its own workers."""
    rays = [str(place) for place in getattr(sys.modules.get("ray"), "__path__", ())]
    path = [folder for folder in sys.path if folder and not any(folder.startswith(own) for own in rays)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _gpu_bytes() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return min((int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles), default=0)
    except pynvml.NVMLError:
        return 0

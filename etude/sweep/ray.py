"""Processes of stages on the nodes of a Ray cluster that runs: Ray starts and watches, and keeps no truth.

A task of Ray is tried once; what comes next is decided from the runs. A stage ends at once with the worker of
Ray that started it, so with the controller too.
"""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from etude import __version__
from etude.errors import FaultError, InputError
from etude.launch.ranks import RESUMABLE
from etude.records.lease import read_lease
from etude.sweep import node
from etude.sweep.dispatch import Device, Joined, Lost
from etude.sweep.folder import SweepFolder
from etude.sweep.local import Exit
from etude.sweep.schema import Resources
from etude.text import plural, shorten

_LOOK_SECONDS = 1.0  # between looks at the nodes
_FIRST_SECONDS = 60.0  # for the nodes that are there at first to be looked at
_AGAIN_SECONDS = 30.0  # until a node with a problem is looked at again
_ANSWER_SECONDS = 5.0  # for a cluster to answer
_NO_MEMORY = "ended by Ray for want of memory on its node"


@dataclass
class _Node:
    """A node of the cluster.

    look     the task that looks whether it can be used, while it does
    next     when to look at it, if it has no devices by then
    problem  what keeps it from the sweep, as told
    """

    identity: str
    name: str
    resources: dict[str, float]
    look: Any = None
    next: float = 0.0
    problem: str = ""
    devices: list[Device] = field(default_factory=list)


@contextlib.contextmanager
def join_cluster(
    resources: Resources, folder: SweepFolder, tell: Callable[[str], None]
) -> Iterator["RayProcesses"]:
    """Join the cluster of a sweep file while entered. The controller holds the folder.

    Raises: InputError without Ray, without a cluster that runs, or if no node of it can be used.
    """
    try:
        import ray
    except ImportError:
        raise InputError('resources.executor = "ray" needs Ray; pip install "etude-workbench[ray]"') from None
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, resources.address or os.environ.get("RAY_ADDRESS") or "auto", folder)
    try:
        yield RayProcesses(ray, resources, folder, tell)
    finally:
        if is_ours:
            ray.shutdown()


class RayProcesses:
    """Processes of stages as children of Ray's workers; a node or each GPU of it is a device."""

    are_known = False  # whose trials share a GPU where the sweep says so

    def __init__(
        self, ray: ModuleType, resources: Resources, folder: SweepFolder, tell: Callable[[str], None]
    ) -> None:
        self._ray, self._resources, self._folder, self._tell = ray, resources, folder, tell
        self._current = str(Path.cwd())
        self._lease = read_lease(folder.path)
        self._nodes: dict[str, _Node] = {}
        self._node_of: dict[str, str] = {}  # the node of each device
        self._running: dict[Any, str] = {}  # the stage of each task
        self._signals = 0
        self._looked = -_LOOK_SECONDS
        self._train = ray.remote(max_retries=0)(node.train)
        self._look = ray.remote(max_retries=0, num_cpus=0)(node.look)
        self.devices: list[Device] = []
        self._wait_for_nodes()

    def start(self, name: str, device: Device, words: Sequence[str], log: Path) -> None:
        """Start `etude WORDS` for a stage on a device; what it says is added to a log."""
        identity = self._node_of[device.name]
        resources, devices = self._nodes[identity].resources, self._nodes[identity].devices
        share = resources["CPU"] / (len(devices) * device.at_once)
        share = int(share) if share >= 1 else share
        gpus = resources.get("GPU", 0.0) / len(devices) if " gpu " in device.name else 0.0
        task = self._train.options(
            num_cpus=share, num_gpus=gpus, name=name, scheduling_strategy=self._on(identity)
        ).remote(identity, list(words), str(log.resolve()), self._current, max(int(share), 1))
        self._running[task] = name

    def signal(self, number: int) -> None:
        """Let all that run save and stop, whatever the number; sent by the next `poll`, as Ray is in use."""
        self._signals += 1

    def poll(self, seconds: float = 0.0) -> list[Exit | Joined | Lost]:
        """The processes that have ended and the devices that have come and gone since the last call.

        seconds: to wait before
        Raises: FaultError if the cluster is gone.
        """
        time.sleep(seconds)
        try:
            return [*self._look_at_nodes(), *self._ends()]
        except (self._ray.exceptions.RaySystemError, self._ray.exceptions.RpcError, ConnectionError) as error:
            raise FaultError(
                f"the Ray cluster does not answer ({shorten(_first_line(error))}); start it, and run the "
                "same command again"
            ) from None

    def _ends(self) -> list[Exit | Joined | Lost]:
        if self._signals:
            self._signals -= 1
            for task in self._running:
                self._ray.cancel(task, force=False, recursive=False)
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._end(task, self._running.pop(task)) for task in done]

    def _end(self, task: Any, name: str) -> Exit:
        errors = self._ray.exceptions
        try:
            return Exit(name, self._ray.get(task))
        except errors.OutOfMemoryError:
            return Exit(name, -signal.SIGKILL, _NO_MEMORY)
        except errors.TaskCancelledError:
            return Exit(name, RESUMABLE)
        except errors.RayTaskError as error:
            return Exit(name, None, f"not started: {shorten(_last_line(error))}")
        except errors.RayError:
            return Exit(name, None, "lost with its worker or node")

    def _look_at_nodes(self) -> list[Exit | Joined | Lost]:
        """Nodes that have come, gone, or been looked at since the last time."""
        found: list[Exit | Joined | Lost] = []
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            alive = {each["NodeID"]: each for each in self._ray.nodes() if each["Alive"]}
            for identity in self._nodes.keys() - alive.keys():
                found += [Lost(device.name) for device in self._nodes.pop(identity).devices]
            for identity, facts in alive.items():
                # One without processors does nothing but hold the cluster together.
                if identity not in self._nodes and facts["Resources"].get("CPU"):
                    name = f"{facts['NodeName']} {identity[:6]}"
                    self._nodes[identity] = _Node(identity, name, facts["Resources"])
        for each in self._nodes.values():
            if each.look is not None and self._ray.wait([each.look], timeout=0)[0]:
                self._end_look(each)
                found += [Joined(device) for device in each.devices]
            elif each.look is None and not each.devices and now >= each.next:
                words = str(self._folder.path.resolve()), self._lease, __version__, self._current
                each.look = self._look.options(scheduling_strategy=self._on(each.identity)).remote(*words)
        return found

    def _end_look(self, each: _Node) -> None:
        """Take the devices of a node that was looked at, or tell why it cannot be used."""
        task, each.look, each.next = each.look, None, time.monotonic() + _AGAIN_SECONDS
        try:
            found = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            found = f"it cannot run etude: {shorten(_last_line(error))}"
        except self._ray.exceptions.OutOfMemoryError:
            found = _NO_MEMORY
        except self._ray.exceptions.RayError:
            found = "it was lost while it was looked at"
        if isinstance(found, int):
            each.devices = _devices(each.name, each.resources, found, self._resources)
            self._node_of.update({device.name: each.identity for device in each.devices})
        elif found != each.problem:
            each.problem = found
            self._tell(f"left out  node {each.name}: {found}")

    def _wait_for_nodes(self) -> None:
        """Wait until the nodes that are there at first have been looked at."""
        end = time.monotonic() + _FIRST_SECONDS
        while time.monotonic() < end:
            self.devices += [event.device for event in self.poll() if isinstance(event, Joined)]
            if self._nodes and all(each.devices or each.problem for each in self._nodes.values()):
                break
            time.sleep(0.05)
        if not self.devices:
            raise InputError(
                f"no node of the Ray cluster can be used ({plural(len(self._nodes), 'node')}); one with CPUs "
                "that sees the sweep folder is needed"
            )

    def _on(self, identity: str) -> Any:
        strategies = self._ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(identity, soft=False)


def _connect(ray: ModuleType, address: str, folder: SweepFolder) -> None:
    """Join a cluster as its driver. Ray lets workers import from the current folder: that of recipes here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
        with contextlib.chdir(folder.path / "trials"):
            ray.init(address, log_to_driver=False, logging_level="CRITICAL")
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise InputError(
            f"no Ray cluster answers at {address[:80]} ({shorten(_first_line(error))}); start one with "
            "`ray start --head` on this machine, or give its HOST:PORT as resources.address"
        ) from None
    ray._private.worker._worker_logs_enabled = False  # else it prints what happened to its processes


def _devices(name: str, resources: dict[str, float], gpu_bytes: int, given: Resources) -> list[Device]:
    """The devices of a node: each GPU, or the node itself without one.

    Several trials on a GPU are as many devices with a share of its memory each, as Ray chooses their GPU.
    """
    limit = given.memory_bytes
    if gpus := int(resources.get("GPU", 0)):
        slots = given.at_once or 1
        memory = (limit or int(0.95 * gpu_bytes)) // slots or None
        return [Device(f"{name} gpu {number}", 1, memory) for number in range(gpus * slots)]
    at_once = given.at_once or max(int(resources["CPU"]) // 2, 1)
    return [Device(name, at_once, limit or int(resources.get("memory", 0)) or None)]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _last_line(error: Exception) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[-1]

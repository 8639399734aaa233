"""The machine on which the page is served: devices, memory, disks, and runs that look abandoned."""

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import EtudeError
from etude.records.events import plain
from etude.records.room import measure_room
from etude.records.store import Run
from etude.text import rough_duration
from etude.ui.readings import key_of
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library

_STALE_SECONDS = 120.0  # a run beats every five seconds
_PATIENCE_SECONDS = 2.0  # for measuring run folders; what is not measured by then follows in a later answer


class Machine:
    """The state of the machine, and the room of run folders, each measured again when it has changed."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._rooms: dict[Path, tuple[Any, dict[str, int]]] = {}
        with contextlib.suppress(Exception):
            import psutil

            psutil.cpu_percent(None)  # the next one is the use since this one

    def page(self, library: "Library") -> dict[str, Any]:
        """Devices, processor, memory, disks with the room that runs take, and runs that look abandoned."""
        import psutil

        memory = psutil.virtual_memory()
        runs = library.runs()
        rooms, left = self._measure(runs)
        return trim(plain({
            "devices": devices(), "gpus_known": _has_nvml(),
            "cpu": {"percent": psutil.cpu_percent(None), "cores": os.cpu_count(), "load": _load()},
            "memory": {"total": memory.total, "available": memory.available, "used_percent": memory.percent},
            "disks": _disks(library, runs, rooms), "rooms": rooms, "not_measured": left,
            "stale": stale_runs(runs),
        }))  # fmt: skip

    def _measure(self, runs: dict[str, Run]) -> tuple[dict[str, dict[str, int]], int]:
        deadline, left = time.monotonic() + _PATIENCE_SECONDS, 0
        found: dict[str, dict[str, int]] = {}
        for identity, run in runs.items():
            with self._turn:
                key, (known, room) = key_of(run.path), self._rooms.get(run.path, (None, {}))
                if known != key and time.monotonic() > deadline:
                    left += not room
                elif known != key:
                    room = {f"{name}_bytes": size for name, size in vars(measure_room(run)).items()}
                    self._rooms[run.path] = key, room
            if room:
                found[identity] = room
        return found, left


def devices() -> list[dict[str, Any]]:
    """The GPUs of this machine now; none where there is none, or nobody can tell."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    found = []
    for place, handle in enumerate(handles):
        values: dict[str, Any] = {"place": place, "name": str(pynvml.nvmlDeviceGetName(handle))}
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            values |= {"memory_bytes": int(memory.used), "memory_total": int(memory.total)}
        with contextlib.suppress(pynvml.NVMLError):
            values["used_percent"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        with contextlib.suppress(pynvml.NVMLError):
            celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            values["celsius"] = float(celsius)
        found.append({"used_percent": None, "memory_bytes": None, "memory_total": None, **values})
    return found


def stale_runs(runs: dict[str, Run]) -> list[dict[str, str]]:
    """Runs that were killed, or whose process holds them and gives no sign of life, and what to do."""
    found = []
    for identity, run in runs.items():
        try:
            state, beat = run.state, run.lease.get("heartbeat")
        except EtudeError:
            continue
        age = None if beat is None else time.time() - beat
        if state == "killed":
            since = "" if age is None else f" about {rough_duration(max(age, 0.0))} ago"
            found.append(
                {"id": identity, "name": run.name, "why": f"its process ended without a message{since}"}
            )
        elif state == "running" and age is not None and age > _STALE_SECONDS:
            why = f"its process gives no sign of life since {rough_duration(age)}; it may hang"
            found.append({"id": identity, "name": run.name, "why": why})
    return found


def _disks(
    library: "Library", runs: dict[str, Run], rooms: dict[str, dict[str, int]]
) -> list[dict[str, Any]]:
    """Each folder given, its disk, and the bytes of the runs in it."""
    found = []
    for folder in library.folders:
        with contextlib.suppress(OSError):
            place = folder if folder.is_dir() else folder.absolute().parent
            disk = shutil.disk_usage(place)
            inside = [each for each, run in runs.items() if run.path.is_relative_to(folder)]
            sizes = [rooms[each] for each in inside if each in rooms]
            found.append({
                "folder": str(folder), "free": disk.free, "total": disk.total,
                "of_runs": sum(size["checkpoints_bytes"] + size["records_bytes"] for size in sizes),
                "removable": sum(size["removable_bytes"] for size in sizes), "runs": len(inside),
            })  # fmt: skip
    return found


def _load() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except OSError:
        return None


def _has_nvml() -> bool:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True

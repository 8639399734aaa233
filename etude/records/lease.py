"""The lease of a run folder and its lock: the process that holds the run, and its state."""

import contextlib
import fcntl
import functools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import InputError, StorageError
from etude.records import shape
from etude.records.folder import read_part
from etude.records.head import HEAD, Head

STATES = ("running", "paused", "finished", "stopped", "failed")
_ATTEMPTS, _MOMENT_SECONDS = 5, 0.01
_LEASE = shape.Object(
    {"state": Annotated[str, shape.one_of(*STATES)]},
    {
        "heartbeat": float,
        "host": str,
        "pid": int,
        "started": float,
        "left": bool,
        "attempt": str,
        "journal": HEAD,
    },
)


def read_lease(path: Path) -> dict[str, Any]:
    """lease.json of a run folder: state, heartbeat (Unix time), host, pid and start of the process."""
    return read_part(path / "lease.json", _LEASE)


def write_lease(
    path: Path, state: str, attempt: str | None = None, *, is_over: bool = False, head: Head | None = None
) -> None:
    """Write that this process holds a run folder, and the state of the run.

    attempt  the name under which this process takes requests
    is_over  whether the process lets go of it as paused, which else is one that still waits
    head     of the journal, at the end of an attempt
    """
    lease: dict[str, Any] = {
        "state": state,
        "heartbeat": round(time.time(), 1),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
    }
    if attempt is not None:
        lease["attempt"] = attempt
    if state == "finished":
        lease["left"] = False
    elif is_over and state == "paused":
        lease["left"] = True
    if head is not None:
        lease["journal"] = head._asdict()
    durable.write_json(path / "lease.json", lease)


@functools.cache
def _start_of(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).create_time())


def leave(path: Path, pid: int) -> None:
    """Write at the end of a process that it was not killed after its run had finished."""
    with contextlib.suppress(Exception):  # the folder may be gone by now
        lease = read_lease(path)
        if os.getpid() == pid == lease["pid"] and lease["state"] == "finished":
            durable.write_json(path / "lease.json", {**lease, "left": True})


def lock_run(path: Path) -> int:
    """Lock a run folder; returns the descriptor. Raises: InputError if another process holds it."""
    descriptor = durable.open_lock(path / ".lock")
    try:
        for _ in range(_ATTEMPTS):  # one who only asks whether it is held has it for a moment
            if durable.lock(descriptor, path / ".lock"):
                return descriptor
            time.sleep(_MOMENT_SECONDS)
    except StorageError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    try:
        lease = read_lease(path)
    except InputError:
        lease = {}
    raise InputError(
        f"run {path.name} is in use by {holder(lease)}; wait for it or stop it, or start another run "
        "with --new"
    )


def holder(lease: Mapping[str, Any]) -> str:
    """The process that wrote a lease, in words."""
    is_known = {"pid", "host"} <= lease.keys()
    return f"process {lease['pid']} on {lease['host']}" if is_known else "another process"


def state_of(path: Path, lease: Mapping[str, Any]) -> str:
    """The state of a run by its lease; killed if it goes on by that, and nobody holds its folder."""
    is_on = lease["state"] in ("running", "paused") and not lease.get("left")
    return "killed" if is_on and not is_locked(path) else str(lease["state"])


def is_locked(path: Path) -> bool:
    """True if some process holds the run folder."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a copy on a disk without locks, where nothing runs
        return False
    finally:
        os.close(descriptor)
    return False


def is_alive(lease: dict[str, Any]) -> bool:
    """True if the process that wrote a lease on this machine still runs."""
    import psutil

    try:
        process = psutil.Process(int(lease["pid"]))
        is_same = process.create_time() <= float(lease["heartbeat"]) + 1
        if "started" in lease:  # older leases have none
            is_same = is_same and abs(process.create_time() - lease["started"]) < 1
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError, TypeError):
        return False

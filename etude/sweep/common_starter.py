"""One starter for all workers of Ray on a node, so that a stage there is a fork too and begins at once.

A worker that finds none starts it. It listens at a socket in a private folder, loads every module, and forks
a process for each request. It ends when nothing was asked of it for a while.
"""

import array
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_IMODE, S_ISDIR
from typing import Any

import etude
from etude.control.ranks import SOCKET
from etude.control.signals import SIGNALS
from etude.errors import EtudeError, FaultError
from etude.processes import python_command
from etude.recipe.load import load_recipe
from etude.sweep.starter import CAN_FORK, fork_stage, load_modules, modules_of

_IDLE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_MOST_REQUEST = 1 << 20  # bytes
_LONGEST_PLACE = 100  # characters of a socket's path, of which Linux takes 107
_PER_TASK = ("CUDA_VISIBLE_DEVICES",)  # variables in which tasks of a node differ
_ASK_SECONDS = 1.0  # for a worker that has connected to send its request
_LOAD_SECONDS = 600.0  # for the modules to be loaded, on a busy node


class Forked:
    """A process that the starter of this node forked."""

    def __init__(self, pid: int, starter: socket.socket) -> None:
        self.pid, self._starter = pid, starter

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, negative for the signal that ended it. Raises: FaultError if the starter ended."""
        with self._starter:
            line = _read_line(self._starter)
        if not line:
            raise FaultError("the process that starts the trials of this node ended")
        return int(json.loads(line)["code"])


def start_stage(
    node: str,
    words: Sequence[str],
    *,
    log: str,
    current: str,
    environment: Mapping[str, str],
    beats: socket.socket,
) -> Forked | None:
    """Let the starter of a node fork `etude WORDS`; None where that cannot be.

    node: a name of the node, for which a machine has a starter of its own. current: the folder that it runs
    in. environment: all its variables. beats: the socket by which it ends with its worker.
    """
    common = {key: value for key, value in environment.items() if key not in _PER_TASK}
    folder = _private_folder([node, etude.__version__, sys.executable, sorted(common.items())])
    if not CAN_FORK or folder is None:
        return None
    own = {key: environment[key] for key in _PER_TASK if key in environment}
    request = {"words": list(words), "log": log, "current": current, "environment": own}
    try:
        starter = _connect(folder, common)
        starter.settimeout(_LOAD_SECONDS)
        beat = array.array("i", [beats.fileno()])
        starter.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, beat)])
        starter.sendall(json.dumps(request).encode() + b"\n")
        answer = _read_line(starter)
        starter.settimeout(None)
    except OSError:
        return None
    if not answer:  # it ended before it forked
        starter.close()
        return None
    return Forked(int(json.loads(answer)["process"]), starter)


def main() -> None:
    """Serve at the socket of a folder, inherited with the number given, until nothing was asked for long."""
    if os.fork():
        os._exit(0)  # no child of a worker, which Ray would end with it
    os.setsid()
    listener = socket.socket(fileno=int(sys.argv[1]))
    load_modules()
    running: dict[int, socket.socket] = {}
    last = time.monotonic()
    while running or time.monotonic() - last < _IDLE_SECONDS:
        if select.select([listener], [], [], _POLL_SECONDS)[0]:
            asker, _ = listener.accept()
            asker.settimeout(_ASK_SECONDS)
            try:
                running[_serve(asker, [listener, *running.values()])] = asker
            except (OSError, ValueError):  # the asker ended
                asker.close()
            last = time.monotonic()
        for process, code in _ended(running):
            _answer(running.pop(process), {"code": code})
            last = time.monotonic()
    with contextlib.suppress(OSError):
        (Path(sys.argv[2]) / "socket").unlink()
        Path(sys.argv[2]).rmdir()


def _serve(asker: socket.socket, others: list[socket.socket]) -> int:
    """Fork the process of one request, and tell the asker its id."""
    _, descriptors, _, _ = socket.recv_fds(asker, 1, 1)
    (beats,) = descriptors
    try:
        request = json.loads(_read_line(asker))
        request["environment"][SOCKET] = str(beats)
        _load_more(request)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the process can answer them
        process = fork_stage(request, [each.fileno() for each in [asker, *others]])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(beats)
    _answer(asker, {"process": process})
    return process


def _load_more(request: Mapping[str, Any]) -> None:
    """Load what the recipe of a stage needs beside; what is wrong with it is told by the stage."""
    with contextlib.suppress(EtudeError, IndexError):
        load_modules(modules_of([load_recipe(Path(request["current"]) / request["words"][2])]))


def _ended(running: Mapping[int, Any]) -> list[tuple[int, int]]:
    """The processes that have ended since the last look, with their exit codes."""
    found = list[tuple[int, int]]()
    while running and len(found) < len(running):
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            break
        found.append((process, os.waitstatus_to_exitcode(status)))
    return found


def _connect(folder: Path, environment: Mapping[str, str]) -> socket.socket:
    """A connection to the starter of a folder, which is started if there is none. Raises: OSError."""
    for _ in range(2):
        starter = socket.socket(socket.AF_UNIX)
        try:
            starter.connect(str(folder / "socket"))
        except (FileNotFoundError, ConnectionRefusedError):
            starter.close()
            _begin(folder, environment)
        else:
            return starter
    raise ConnectionRefusedError


def _begin(folder: Path, environment: Mapping[str, str]) -> None:
    """Start a starter whose socket is there at once. Of two that begin together one ends soon, unused."""
    own = folder / f"socket-{os.getpid()}"
    own.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own))
        listener.listen(128)
        own.rename(folder / "socket")
        subprocess.Popen(
            python_command("etude.sweep.common_starter", str(listener.fileno()), str(folder)),
            env=dict(environment),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()], cwd="/",
        ).wait()  # fmt: skip


def _private_folder(key: Any) -> Path | None:
    """A folder for this key that no other user can look into; None if somebody else has one of its name."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"etude-starter-{os.geteuid()}-{name}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_private = S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and S_IMODE(found.st_mode) == 0o700
    return folder if is_private and len(str(folder)) < _LONGEST_PLACE - len("/socket-1234567") else None


def _read_line(connection: socket.socket) -> bytes:
    """The next line of a connection, empty if it ends before."""
    read = b""
    while not read.endswith(b"\n"):
        part = connection.recv(1 << 16)
        if not part or len(read) > _MOST_REQUEST:
            return b""
        read += part
    return read


def _answer(connection: socket.socket, values: dict[str, Any]) -> None:
    """Send a line; once a process has ended, its connection too."""
    with contextlib.suppress(OSError):  # nobody waits any more
        connection.sendall(json.dumps(values).encode() + b"\n")
    if "code" in values:
        connection.close()


if __name__ == "__main__":
    main()

"""Pythons that need not load torch: forks of a process that has it and etude, as children of the test.

`Server.start` is `subprocess.Popen` of `python -c CODE WORDS`, with its pipes, signals, groups and exit codes: the
server forks, what it forked forks once more and ends, and the system gives the orphan to the nearest ancestor that
asks for orphans, which is the test. The process is its child, and can be killed, stopped, waited for and looked at
as any other. Ranks that such a command starts are forks of it.

A real Python is for what only it shows: its start and the time of that, its command line, options and variables
that the interpreter reads.
"""

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

ETUDE = "from etude.__main__ import program; program()"
# What a command took of memory beyond what it shares with the server, and the most that a child of it took.
_MEASURED = """
import atexit, os, psutil, resource
me, before = os.getpid(), psutil.Process().memory_info().rss
os.write({told}, str(before).encode())
def tell():
    if os.getpid() == me:  # a fork of it begins with what it would do at its end
        sides = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        own, largest = (resource.getrusage(side).ru_maxrss * 1024 for side in sides)
        os.write({told}, f" {{own - before}} {{largest}}".encode())
atexit.register(tell)
"""
# Modules that a command of a test may start: etude, the starter of its sweeps.
_FORKED = ("etude", "etude.sweep.starter")
_start = subprocess._fork_exec  # type: ignore[attr-defined]
# What most runs load once they need it, without the drawing of charts that nobody looks at.
_LATE_MODULES = ("tests.undrawn", "jinja2", "numpy.random", "rensa", "tokenizers")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


@dataclass(frozen=True)
class Answer:
    """How a command ended.

    `bytes` is what it took of memory beyond what the server had at the fork, and what the largest of its own
    children took; of one that was killed, which cannot tell the two apart, the larger of both.
    """

    code: int
    out: str
    err: str
    seconds: float
    bytes: int


class Server:
    """The process, which also imports the modules that are named; leave the block to end it."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._turn = threading.Lock()

    def __enter__(self) -> "Server":
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(theirs.fileno()), *self._modules],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # a fork of the test may hold it too
        self._socket.close()
        self._process.wait()

    def start(self, code: str, words: Sequence[object] = (), **how: Any) -> "subprocess.Popen[Any]":
        """Start `python -c CODE WORDS`; `how` is for `subprocess.Popen`."""
        with self._turn, patch.object(subprocess, "_fork_exec", self._fork):
            return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], **how)

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Within the block, fork for each `python -m etude`, and what else is `_FORKED`, that `subprocess` starts."""
        with patch.object(subprocess, "_fork_exec", partial(_fork_or_start, self._fork, _start)):
            yield

    def etude(self, words: Sequence[object], *, first: str = "", **how: Any) -> "subprocess.Popen[Any]":
        """Start `etude WORDS`, after the code `first`."""
        return self.start(f"{first}\n{ETUDE}", words, **how)

    def run(
        self, folder: Path, words: Sequence[object], *, seconds: float,
        environment: dict[str, str] | None = None, first: str = "",
    ) -> Answer:  # fmt: skip
        """Run `etude WORDS` in a folder, after the code `first`, and kill it after so many seconds."""
        started = time.monotonic()
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as told,
        ):
            process = self.etude(
                words, first=_MEASURED.format(told=told.fileno()) + first, pass_fds=[told.fileno()],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, process_group=0,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
            started = time.monotonic()  # the server may have had to load first
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                if time.monotonic() - started > seconds:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.005)
            process.returncode = os.waitstatus_to_exitcode(ended[1])
            before, *peaks = [int(each) for each in _text(told).split() or ["0"]]
            return Answer(
                process.returncode, _text(out), _text(err), time.monotonic() - started,
                max(sum(peaks) or ended[2].ru_maxrss * 1024 - before, 0),
            )  # fmt: skip

    def _fork(self, command: Sequence[Any], *rest: Any) -> int:
        """Fork in place of `_posixsubprocess.fork_exec`, whose arguments these are; returns the process."""
        request, files = _request(command, *rest)
        said = json.dumps(request).encode()
        prctl = ctypes.CDLL(None).prctl
        prctl(_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(self._socket, [len(said).to_bytes(4, "big")], files)
            self._socket.sendall(said)
            answer = self._socket.recv(16)
        finally:
            prctl(_SUBREAPER, 0, 0, 0, 0)
        assert int(answer or 0), "the server of forks has ended, or could not fork"
        return int(answer)


@cache
def _server(process: int) -> Server:
    started = Server(*_LATE_MODULES)
    started.__enter__()
    atexit.register(started.__exit__)
    return started


def server() -> Server:
    """The server of this process, which ends with it."""
    return _server(os.getpid())


def _request(command: Sequence[Any], *rest: Any) -> tuple[dict[str, Any], list[int]]:
    """What a fork has to know of the process that is asked for, and the files that it is to have."""
    _, _, keep, folder, environment, stdin, _, _, stdout, _, stderr, _, ready, _, session, group, *_ = rest
    streams = [file if file >= 0 else usual for usual, file in enumerate((stdin, stdout, stderr))]
    kept = [file for file in keep if file != ready]
    given = dict(os.environ) if environment is None else None
    request = {
        "command": [*map(os.fsdecode, command)],
        "folder": os.fsdecode(folder) if folder is not None else str(Path.cwd()),
        "environment": given or dict(os.fsdecode(each).split("=", 1) for each in environment),
        "files": [0, 1, 2, *kept], "session": session, "group": group,
        "mask": [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))],
    }  # fmt: skip
    return request, streams + kept


def serve(channel: socket.socket) -> None:
    """Fork for each request, until the other end of the channel is closed."""
    sizes = array.array("i")
    while True:
        size, files, *_ = socket.recv_fds(channel, 4, 250 * sizes.itemsize)
        if not size:
            return
        said = b""
        while len(said) < int.from_bytes(size, "big"):
            said += channel.recv(int.from_bytes(size, "big") - len(said))
        here, there = os.pipe()
        if (between := os.fork()) == 0:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.0002)
            be(json.loads(said), files, there)
        os.close(there)
        os.waitpid(between, 0)
        channel.sendall(os.read(here, 16) or b"0")
        for each in (here, *files):
            os.close(each)


def be(request: dict[str, Any], files: Sequence[int], ready: int) -> None:
    """Be the process that is asked for, with copies of these files, to its end; its number goes to the file `ready`
    once it is in its group, which whoever asked may signal from then on.
    """
    code = 1
    try:
        if request["session"]:
            os.setsid()
        elif request["group"] >= 0:
            os.setpgid(0, request["group"])
        os.write(ready, str(os.getpid()).encode())
        vars(weakref.finalize)["_registry"].clear()  # temporary folders are of the process that made them
        _place(request["files"], files)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        for name in ("stdin", "stdout", "stderr"):
            setattr(sys, name, _stream(name))
        sys.orig_argv = request["command"]
        how, what, *words = (each for each in request["command"][1:] if each != "-P")
        sys.argv = [how, *words]  # runpy puts the file of a module there
        subprocess._fork_exec = partial(_fork_or_start, _fork_here, _start)  # type: ignore[attr-defined]
        signal.pthread_sigmask(signal.SIG_SETMASK, request["mask"])
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(code)


def _fork_or_start(fork: Any, start: Any, command: Sequence[Any], *rest: Any) -> int:
    """Fork for a command of this Python that loads etude, start any other."""
    words = [os.fsdecode(each) for each in command]
    is_ours = words[0] == sys.executable and {*_FORKED} & {*words[1:4]}
    return int((fork if is_ours else start)(command, *rest))


def _fork_here(command: Sequence[Any], *rest: Any) -> int:
    """Fork for what a fork starts; it has not trained, after which none of its forks could."""
    request, files = _request(command, *rest)
    here, there = os.pipe()
    if os.fork() == 0:
        be(request, files, there)
    os.close(there)
    pid = int(os.read(here, 16))
    os.close(here)
    return pid


def _place(numbers: Sequence[int], files: Sequence[int]) -> None:
    """Give copies of files these numbers, and close all others, as the start of a program does."""
    above = max(*numbers, *files) + 1
    copies = [os.dup2(file, above + at, inheritable=False) for at, file in enumerate(files)]
    for number, copy in zip(numbers, copies, strict=True):
        os.dup2(copy, number)
    for each in {int(each.name) for each in Path("/proc/self/fd").iterdir()} - {*numbers}:
        with contextlib.suppress(OSError):  # of the listing
            os.close(each)


def _stream(name: str) -> io.TextIOWrapper:
    """A standard stream as Python opens it."""
    number = ("stdin", "stdout", "stderr").index(name)
    is_terminal = os.isatty(number)
    raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        raw, errors="backslashreplace" if number == 2 else "strict", line_buffering=number == 2 or is_terminal
    )


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(1 << 20).decode(errors="replace"))


if __name__ == "__main__":
    import etude.cli.main
    import etude.run  # noqa: F401 - imported for the forks

    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # no fork looks through what all share
    with socket.socket(fileno=int(sys.argv[1])) as one:
        serve(one)

"""A process that has imported etude and forks for each command, so that a case costs no start of Python."""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


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

    def __enter__(self) -> "Server":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self, folder: Path, words: list[str], *, seconds: float, environment: dict[str, str] | None = None,
        first: str = "",
    ) -> Answer:  # fmt: skip
        """Run `etude WORDS` in a folder, after the code `first`, and kill it after so many seconds."""
        assert self._process.stdin and self._process.stdout
        request = {"folder": str(folder), "words": words, "seconds": seconds, "first": first}
        request["environment"] = environment or {}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(self._process.stdout.readline()))


@functools.cache
def server() -> Server:
    """The server of this process, which ends with it."""
    started = Server()
    started.__enter__()
    atexit.register(started.__exit__)
    return started


def serve() -> None:
    import etude.cli.main
    import etude.run  # noqa: F401 - imported for the forks

    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # no fork looks through what all share

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = time.monotonic()
            here, there = os.pipe()
            if (pid := os.fork()) == 0:
                _live(request, out.fileno(), err.fileno(), there)
            os.close(there)
            while (ended := os.wait4(pid, os.WNOHANG))[0] == 0:
                if time.monotonic() - started > request["seconds"]:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, 9)
                time.sleep(0.005)
            with os.fdopen(here, "rb", buffering=0) as told:
                os.set_blocking(here, False)  # a grandchild that lives on may hold the other end
                before, *peaks = map(int, (told.read() or b"0").split())
            print(json.dumps({
                "code": os.waitstatus_to_exitcode(ended[1]),
                "out": _text(out), "err": _text(err), "seconds": time.monotonic() - started,
                "bytes": max(sum(peaks) or ended[2].ru_maxrss * 1024 - before, 0),
            }), flush=True)  # fmt: skip


def _live(request: dict[str, Any], out: int, err: int, told: int) -> None:
    from etude.cli.main import main

    code = 70
    try:
        before = psutil.Process().memory_info().rss  # what it shares with the server
        os.write(told, str(before).encode())
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        sys.argv = ["etude", *request["words"]]
        try:
            exec(request["first"])
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        peaks = [
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        os.write(told, f" {peaks[0] * 1024 - before} {peaks[1] * 1024}".encode())
    finally:
        os._exit(code)


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(1 << 20).decode(errors="replace"))


if __name__ == "__main__":
    serve()

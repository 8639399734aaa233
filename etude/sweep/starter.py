"""A process with every module loaded, of which each stage is a fork: it begins without seconds of imports.

`main` is that process. It reads requests as lines of JSON, answers each when it has forked the process, and
again with its exit code. It computes nothing, so that no thread is lost in a fork. When its controller ends,
it ends too, and what it started goes on.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from etude.processes import python_command, python_environment
from etude.recipe.schema import Recipe

CAN_FORK = sys.platform == "linux"  # elsewhere the system's own libraries do not outlive a fork
_POLL_SECONDS = 0.01
# Modules that a stage loads only when it needs them; those of scikit-learn take a second.
_LATE_MODULES = (
    "sklearn.feature_extraction.text", "sklearn.linear_model", "matplotlib.backends.backend_svg",
    "matplotlib.figure", "rensa",
)  # fmt: skip


class Starter:
    """A starter as its controller sees it.

    waiting  requests that it has not answered, by name
    running  names of the processes that it forked

    modules: that it loads beside those that every stage needs
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = ()) -> None:
        self.waiting: dict[str, dict[str, Any]] = {}
        self.running: set[str] = set()
        self._read = b""
        self._process = subprocess.Popen(
            python_command("etude.sweep.starter", *modules), env={**environment, **python_environment()},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._answers, False)

    def start(self, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Ask for a process of `etude WORDS`; what it says is added to a log."""
        self.waiting[name] = {
            "name": name, "words": list(words), "log": str(log), "environment": dict(environment)
        }  # fmt: skip
        self._ask(self.waiting[name])

    def signal(self, number: int) -> None:
        """Send a signal to all processes that were asked for and have not ended."""
        self._ask({"signal": number})

    def poll(self, seconds: float = 0.0) -> tuple[dict[str, int], bool]:
        """The exit codes of processes that have ended since the last call, and whether the starter lives.

        seconds: to wait at most for an answer of it
        """
        ended, is_alive = dict[str, int](), True
        select.select([self._answers], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._answers, 1 << 16):
                self._read += part
            is_alive = False
        *lines, self._read = self._read.split(b"\n")
        for answer in map(json.loads, lines):
            self.waiting.pop(answer["name"], None)
            if "code" not in answer:
                self.running.add(answer["name"])
            else:
                self.running.discard(answer["name"])
                ended[answer["name"]] = answer["code"]
        return ended, is_alive

    def close(self) -> None:
        """Let it end; the processes that it forked go on."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
        if not self.waiting:  # it may still load modules, which nobody waits for
            self._process.kill()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # `poll` finds that it has ended
            os.write(self._requests, (json.dumps(request) + "\n").encode())


def main() -> None:
    """Load every module, those that the command line names too, then fork a process for each request."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    load_modules(sys.argv[1:])
    running: dict[int, str] = {}
    read = b""
    while True:
        if select.select([requests], [], [], _POLL_SECONDS if running else None)[0]:
            if not (part := os.read(requests, 1 << 16)):
                return
            *lines, read = (read + part).split(b"\n")
            for request in map(json.loads, lines):
                if "signal" in request:
                    for process in running:
                        os.kill(process, request["signal"])
                    continue
                process = fork_stage(request, [requests, answers, null])
                running[process] = request["name"]
                _answer(answers, {"name": request["name"]})
        while running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            _answer(answers, {"name": running.pop(process), "code": os.waitstatus_to_exitcode(status)})


def _answer(answers: int, values: dict[str, Any]) -> None:
    os.write(answers, (json.dumps(values) + "\n").encode())


def load_modules(more: Sequence[str] = ()) -> None:
    """Load every module that a stage needs, and more by name."""
    for name in ("etude.cli.main", "etude.cli.sweep", "etude.sweep.stage", *_LATE_MODULES, *more):
        importlib.import_module(name)


def modules_of(recipes: Iterable[Recipe]) -> list[str]:
    """Modules that the stages of some recipes need beside: torch's compiler, which takes seconds to load.

    Activations that are computed again load it, too.
    """
    trains = [recipe.train for recipe in recipes]
    return ["torch._dynamo"] if any(each.activation_checkpointing or each.compile for each in trains) else []


def fork_stage(request: dict[str, Any], own: list[int]) -> int:
    """The id of a new process that runs the `words` of a request, without these own descriptors.

    What it says is added to its `log`; it runs in the folder `current`, if one is given, and has the
    variables of `environment` beside those of this process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a thread of an allocator, which outlives a fork
        process = os.fork()
    if not process:
        try:
            for descriptor in own:
                os.close(descriptor)
            _run(request)
        finally:
            os._exit(1)
    with contextlib.suppress(OSError):  # the process did it first, or has ended
        os.setpgid(process, process)
    return process


def _run(request: dict[str, Any]) -> NoReturn:
    """Be a process of `etude WORDS`, as if it had been started by itself."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(request.get("current", "."))
    os.environ.update(request["environment"])
    sys.argv = ["etude", *request["words"]]
    runpy.run_module("etude", run_name="__main__")
    raise AssertionError("a program ends its process")


if __name__ == "__main__":
    main()

"""The bare process in which samples are run: no torch, no secret and no row of the data is in its memory.

It is told the limits of a sample and is handed two files, the sample's and its tests'. For each it begins
a confined process that can start no other: one runs the sample, the other the tests, which call the sample
over a pipe. So a sample sees neither its tests nor the nonce that they end with. `sandbox.py` is the other
end. A program of another language is one file, which `programs.py` runs.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from etude.confine import kernel
from etude.confine.family import state
from etude.confine.room import Room, Tier, enter, leave_namespaces
from etude.evaluate.programs import run_program
from etude.evaluate.sides import hold_sample, hold_tests

# What samples use most, imported once for all of them.
_COMMON = (
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
    "itertools", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
_MOST_BYTES = 1 << 16  # of an order, and of what tests say
_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 0.5  # of a process that ends by itself
_MOST_IDLE = 6  # times asleep_seconds that may pass in all while nobody runs or waits for a core
_MOST_THREADS = 256  # memory of the kernel, which counts for no limit


def main() -> None:
    """Answer orders until the other end closes."""
    channel = socket.socket(fileno=0)
    tier = Tier(**json.loads(sys.argv[1]))
    os.setsid()
    if tier.namespaces:
        leave_namespaces()
    for name in _COMMON:
        importlib.import_module(name)
    os.chdir("/")
    channel.sendall(b"ready\n")
    while True:
        order, files, _, _ = socket.recv_fds(channel, _MOST_BYTES, 2)
        if not order:
            return
        asked = json.loads(order)
        if len(files) == 1:
            with open(files.pop(), encoding="utf-8") as program:
                answer = run_program({**asked, "build": json.load(program)}, tier)
        else:
            answer = _run(Room(**asked["room"]), tier, asked["asleep_seconds"], files)
        for file in files:
            os.close(file)
        channel.sendall(json.dumps(answer).encode() + b"\n")


def _run(room: Room, tier: Tier, asleep_seconds: float, files: list[int]) -> dict[str, Any]:
    """Run a sample against its tests: what the tests said, whether both slept too long, how they ended."""
    of_sample, of_tests = files
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    said, say = os.pipe()
    # The sample is begun first, so that it holds no end that is the tests' own for a moment.
    sample = _begin((of_sample, asked, answer), room, tier, hold_sample)
    tests = _begin((of_tests, answered, ask, say), room, tier, hold_tests)
    for end in (asked, ask, answered, answer, say):
        os.close(end)
    words, over = _listen(said, (sample, tests), asleep_seconds)
    os.close(said)
    is_waiting = not over
    ended = {"tests": _end(tests, is_waiting), "sample": _end(sample, is_waiting and b'"ended"' in words)}
    return {"said": words.decode("utf-8", "replace"), "over": over, **ended}


def _begin(kept: tuple[int, ...], room: Room, tier: Tier, role: Callable[..., None]) -> int:
    """Begin a process that is confined, and has no descriptors but `kept`, before it takes its role."""
    child = os.fork()
    if child:
        return child
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        before = 3
        for descriptor in sorted(kept):
            os.closerange(before, descriptor)
            before = descriptor + 1
        os.closerange(before, 1 << 20)
        if kernel.architecture() is not None:
            kernel.end_with_parent()
        enter(room, tier)
        role(*kept)
    finally:  # nothing of a child goes on where its parent would
        os._exit(1)


def _listen(said: int, children: tuple[int, int], asleep_seconds: float) -> tuple[bytes, str]:
    """The words of the tests until they end, and `asleep` or `threads` where they or the sample went too far.

    Asleep is time in which nobody did anything: so long in a row, or a multiple of it in all. Time in which a
    process waits for a core, as on a loaded machine, does not count.
    """
    words, asleep, idle, last = b"", 0.0, 0.0, time.monotonic()
    before: list[tuple[bool, float]] = []
    while asleep < asleep_seconds and idle < _MOST_IDLE * asleep_seconds:
        if select.select([said], [], [], _LOOK_SECONDS)[0]:
            part = os.read(said, _MOST_BYTES)
            words += part
            if not part or len(words) > _MOST_BYTES:
                return words[:_MOST_BYTES], ""
        now, found = time.monotonic(), [state(child) for child in children]
        if any(each.threads > _MOST_THREADS for each in found):
            return words, "threads"
        states = [(each.is_running, each.seconds) for each in found]
        is_asleep = states == before and not any(each.is_running for each in found)
        asleep = asleep + now - last if is_asleep else 0.0
        idle += now - last if is_asleep else 0.0
        last, before = now, states
    return words, "asleep"


def _end(child: int, is_waiting: bool) -> dict[str, Any]:
    """The end of a process: the signal that ended it, 0 for none or for ours, its time and memory.

    is_waiting: it is ending by itself, and is given a moment to be through.
    """
    deadline = time.monotonic() + is_waiting * _GRACE_SECONDS
    found, status, usage = os.wait4(child, os.WNOHANG)
    while not found and time.monotonic() < deadline:
        time.sleep(0.001)
        found, status, usage = os.wait4(child, os.WNOHANG)
    if not found:
        os.kill(child, signal.SIGKILL)
        _, _, usage = os.wait4(child, 0)
    return {
        "signal": max(-os.waitstatus_to_exitcode(status), 0) if found else 0,
        "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024,
    }  # fmt: skip


if __name__ == "__main__":
    main()

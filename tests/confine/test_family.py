"""Processes that a process starts are counted by the kernel's own questions, and end with it."""

import os
import select
import socket
import subprocess
import sys
import time

import pytest

from etude.confine import kernel, seccomp
from etude.confine.family import MOST_AT_ONCE, Family, state
from etude.confine.room import strongest
from tests.confine.apart import outcome
from tests.processes import wait_for

needs_kernel = pytest.mark.skipif(not strongest().confines, reason="this kernel confines nothing")


@pytest.mark.skipif(kernel.architecture() is None, reason="not Linux")
def test_a_process_that_sleeps_is_told_from_one_that_runs() -> None:
    sleeping = subprocess.Popen([sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE)
    running = subprocess.Popen([sys.executable, "-I", "-c", "while True: pass"])
    try:
        wait_for(lambda: not state(sleeping.pid).is_running)
        wait_for(lambda: state(running.pid).is_running)
        assert state(running.pid).threads == 1 and state(running.pid).bytes > 1 << 20
    finally:
        for process in (sleeping, running):
            process.kill()
            process.wait()
    assert state(running.pid).threads == 0


def _run(code: str) -> list[object]:
    """Let a process run Python that forks until it ends or goes too far: over, the code's words, processes left."""
    read, write = os.pipe()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        with theirs:
            socket.send_fds(theirs, [b"."], [seccomp.ask_before_fork()])
        ours.close()
        try:
            exec(code, {"say": lambda text: os.write(write, str(text).encode())})
        finally:
            os._exit(0)
    os.close(write)
    theirs.close()
    family = Family(socket.recv_fds(ours, 1, 1)[1][0])
    handle = os.pidfd_open(child)
    while not family.is_over:
        ready = select.select([family.listener, handle], [], [])[0]
        if family.listener in ready:
            family.answer()
        if handle in ready:
            break
    family.end()
    words = os.read(read, 100)
    with open(f"/proc/self/task/{os.getpid()}/children") as left:
        return [family.is_over, words.decode(), left.read()]


@needs_kernel
def test_forks_are_allowed_up_to_a_number_and_all_end() -> None:
    few = "import os, time\nfor _ in range(9):\n    if not os.fork():\n        time.sleep(600)\nsay('made')"
    assert outcome(lambda: _run(few)) == [False, "made", ""]
    bomb = "import os\nwhile True:\n    os.fork()"
    assert outcome(lambda: _run(bomb)) == [True, "", ""]
    assert MOST_AT_ONCE == 64


@needs_kernel
def test_one_that_leaves_its_parent_is_counted_and_ends() -> None:
    away = "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        time.sleep(600)\n    os._exit(0)\nos.wait()"
    started = time.monotonic()
    assert outcome(lambda: _run(away)) == [False, "", ""]
    assert time.monotonic() - started < 300


@needs_kernel
def test_threads_are_not_asked_for() -> None:
    threads = "import threading\nall = [threading.Thread(target=lambda: None) for _ in range(9)]\nfor t in all: t.start()\nfor t in all: t.join()\nsay(len(all))"
    assert outcome(lambda: _run(threads)) == [False, "9", ""]

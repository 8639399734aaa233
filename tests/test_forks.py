"""Forks of the server are processes of the test, as those that it would start by Python itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.forking import server

SEEN = """
import json, os, signal, sys
open_files = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
print(json.dumps([sys.argv, os.getcwd(), sorted(os.environ), os.getppid(), os.getsid(0) == os.getpid(), open_files,
                  sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))), sys.stdin.read()]))
print("told", file=sys.stderr)
sys.exit(7)
"""


def test_a_fork_has_what_python_would_have_started_with(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        how = {
            "cwd": tmp_path, "env": {"HOME": "/", "LC_CTYPE": "C.UTF-8"}, "start_new_session": True,
            "pass_fds": [writer], "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "text": True,
        }  # fmt: skip
        forked = server().start(SEEN, ["one", 2], **how)
        started = subprocess.Popen([sys.executable, "-c", SEEN, "one", "2"], **how)  # type: ignore[call-overload]
        assert psutil.Process(forked.pid) in psutil.Process().children()
        assert forked.communicate("given", timeout=60) == started.communicate("given", timeout=60)
        assert forked.returncode == started.returncode == 7
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_fork_as_it_ends_python(number: signal.Signals) -> None:
    code = "import time; print('on', flush=True); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    codes = []
    for process in (server().start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE), started):
        assert process.stdout is not None and process.stdout.readline() == b"on\n"
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        codes.append((process.returncode, b"KeyboardInterrupt" in said))
    assert codes[0] == codes[1]


def test_a_fork_is_in_its_group_when_it_is_given_out() -> None:
    for how in ({"start_new_session": True}, {"process_group": 0}):
        process = server().start("import time; time.sleep(600)", **how)
        assert os.getpgid(process.pid) == process.pid
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL

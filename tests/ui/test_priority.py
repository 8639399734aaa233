"""The server runs after a training, and a training that it starts runs as if started from a command line."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, subprocess, sys, threading
from etude.ui.priority import at_first_priority, step_back

def of_child():
    code = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

def of_thread():
    found.append(os.getpriority(os.PRIO_PROCESS, 0))

found = [at_first_priority(of_child)]
step_back()
step_back()
thread = threading.Thread(target=of_thread)
thread.start()
thread.join()
print(*found, of_child(), at_first_priority(of_child))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_threads_and_commands_of_the_server_step_back_and_a_training_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    behind = max(mine, 10)
    assert list(map(int, done.stdout.split())) == [mine, behind, behind, mine]

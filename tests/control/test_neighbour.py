"""A process of this machine is told at work, stopped, asleep and gone."""

import os
import signal
import time
from pathlib import Path

import pytest

from etude.control.neighbour import Neighbour, own_place
from tests.processes import begin_fork, wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


def compute() -> None:
    while True:
        pass


def test_a_process_is_at_work_until_it_is_stopped_or_killed() -> None:
    child = begin_fork(compute)
    assert child.pid is not None
    near = Neighbour.of(child.pid)
    assert near is not None and near.is_at_work()
    os.kill(child.pid, signal.SIGSTOP)
    wait_for(lambda: not near.is_at_work())
    assert near.seen == f"its process {child.pid} is stopped"
    os.kill(child.pid, signal.SIGCONT)
    wait_for(near.is_at_work)
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not near.is_at_work())
    assert near.seen == f"its process {child.pid} is gone"  # a zombie
    child.join()
    assert not near.is_at_work() and Neighbour.of(child.pid) is None


def test_a_process_that_sleeps_is_not_at_work() -> None:
    child = begin_fork(lambda: time.sleep(600))
    assert child.pid is not None
    near = Neighbour.of(child.pid)
    assert near is not None
    wait_for(lambda: not near.is_at_work() and "takes no time of the processor" in near.seen)
    child.kill()
    child.join()


def test_another_process_with_the_number_is_not_taken_for_it() -> None:
    near = Neighbour(os.getpid(), "1")
    assert not near.is_at_work() and near.seen.endswith("is gone")


def test_a_place_is_read_on_its_machine_alone() -> None:
    pid, began, machine = own_place().split(":", 2)
    near = Neighbour.read(f"{pid}:{began}:{machine}")
    assert near is not None and (near.pid, near.began) == (os.getpid(), began) and near.is_at_work()
    for odd in (
        "",
        "-",
        f"{pid}:{began}:",
        f"{pid}:{began}:x/{machine}",
        f"-1:{began}:{machine}",
        f"x:1:{machine}",
    ):
        assert Neighbour.read(odd) is None

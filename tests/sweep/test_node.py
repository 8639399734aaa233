"""The part of a sweep on a node: it uses no folder that is not shared, and a stage never outlives its worker."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from etude import __version__
from etude.processes import python_command, python_environment
from etude.records.lease import read_lease
from etude.sweep.folder import SweepFolder
from etude.sweep.node import look, train
from tests.processes import wait_for


def test_a_node_that_sees_the_folder_and_its_lock_can_be_used(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        lease = read_lease(folder.path)
        assert isinstance(look(str(folder.path), lease, __version__, str(tmp_path)), int)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": "0.0"}, "it has etude "),
        ({"folder": "/nowhere"}, "the sweep folder must lie on storage that all nodes share"),
        ({"lease": {"state": "running", "pid": 1}}, "does not see "),
        ({"current": "/nowhere"}, "it has no folder /nowhere"),
    ],
)
def test_a_node_that_cannot_be_used_says_why(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        given: dict[str, object] = {
            "folder": str(folder.path), "lease": read_lease(folder.path), "version": __version__,
            "current": str(tmp_path),
        }  # fmt: skip
        assert problem in str(look(**{**given, **change}))  # type: ignore[arg-type]


def test_a_folder_whose_lock_does_not_hold_there_is_refused(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "place")
    with folder.hold():
        pass
    found = look(str(folder.path), read_lease(folder.path), __version__, str(tmp_path))
    assert "mount the storage so that all nodes share its locks" in str(found)


def test_a_process_gives_its_code_and_its_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert train("node", ["show", "nosuch", "--runs", str(tmp_path)], str(log), str(tmp_path), 1) == 2
    assert "there is no run nosuch" in log.read_text()


def test_a_process_ends_with_what_started_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        "import sys; from etude.sweep import node\n"
        "node.start_stage = lambda *given, **named: None\n"
        "node.python_command = lambda module, *words: [sys.executable, '-c', words[0]]\n"
        "node.train('node', [sys.argv[1]], sys.argv[2], '.', 1)\n"
    )
    child = (
        "import os, time; from etude.control.ranks import follow_launcher; follow_launcher(); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [*python_command("etude")[:2], "-c", script, child, str(log)], env=python_environment()
    )
    wait_for(lambda: log.exists() and log.read_text().strip(), parent)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(int(log.read_text())))

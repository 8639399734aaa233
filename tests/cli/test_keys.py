"""Keys that are typed at a real terminal, under a shell that gives and takes it."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.cli import keys
from etude.control.mailbox import FILE
from etude.processes import python_command
from etude.records.events import Control
from etude.records.store import Run, list_runs

VIEW = """
import sys, time
from pathlib import Path
from etude.cli.live import LiveView
from tests.report.runs import new_run
view, writer = LiveView(), new_run(Path(sys.argv[1]))
view.show_plan(writer.run, [])
try:
    while not (writer.run.path / "end").exists():
        time.sleep(0.02)
    if (writer.run.path / "end").read_text():
        raise ValueError
finally:
    view.close()
"""
LIMIT_SECONDS = 120.0


class Session:
    """A terminal of 100 columns with a command on it; `shown` is what was drawn and not yet seen."""

    def __init__(self, *words: object, how: str = "foreground", ahead: str = "") -> None:
        self._terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.type(ahead)
        self._shell = subprocess.Popen(
            [sys.executable, "-m", "tests.shell", how, *map(str, words)], stdin=end, stderr=end, text=True,
            stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(end)
        self._drawn, self._seen = "", 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()  # at once: what nobody reads holds up the one who draws

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def see(self, words: str) -> None:
        """Wait until words are drawn that were not before; what came up to them is gone."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while words not in self.shown:
            is_on = self._reader.is_alive() and time.monotonic() < deadline
            assert is_on or words in self.shown, f"no {words!r} in {self.shown[-3000:]}"
            time.sleep(0.02)
        self._seen += self.shown.index(words) + len(words)

    @property
    def shown(self) -> str:
        return self._drawn[self._seen :]

    def end(self) -> list[str]:
        """Wait for the end; returns the lines of the shell."""
        out, _ = self._shell.communicate(timeout=LIMIT_SECONDS)
        return out.splitlines()

    def close(self) -> None:
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        self._reader.join(LIMIT_SECONDS)
        os.close(self._terminal)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # once nobody has the other end
            while piece := os.read(self._terminal, 1 << 16):
                self._drawn += piece.decode("utf-8", "replace")


Open = Callable[..., Session]


@pytest.fixture
def open_session() -> Iterator[Open]:
    opened: list[Session] = []

    def make(*words: object, **how: Any) -> Session:
        opened.append(Session(*words, **how))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def open_view(open_session: Open, tmp_path: Path) -> Open:
    """The view of a run that is going on, and does nothing."""
    return lambda **how: open_session(sys.executable, "-c", VIEW, tmp_path / "runs", **how)


def the_run(folder: Path) -> Run:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := list_runs(folder) if folder.exists() else []):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


def asked(run: Run) -> list[tuple[str, str]]:
    path = run.path / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [(each["action"], each["channel"]) for each in map(json.loads, lines)]


def test_each_key_leaves_its_request_and_the_terminal_is_as_it_was(open_view: Open, tmp_path: Path) -> None:
    session = open_view()
    session.see(keys.LINE[:30])
    for key, action in keys.ACTIONS.items():
        session.type(key)
        session.see(f"asked to {action}")
    session.type("x")
    session.see(keys.LINE[:30])
    session.type("?")
    session.see(keys.HELP[:30])
    run = the_run(tmp_path / "runs")
    assert asked(run) == [(action, "view") for action in keys.ACTIONS.values()]
    (run.path / "end").touch()
    assert session.end() == ["ended 0 as it was", "left b''"]


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "SIGHUP", "error"])
def test_the_terminal_is_as_it_was_however_it_ends(way: str, open_view: Open, tmp_path: Path) -> None:
    session = open_view()
    session.see(keys.LINE[:30])
    run = the_run(tmp_path / "runs")
    if way == "Ctrl-C":
        session.type("\x03")
    elif way == "error":
        (run.path / "end").write_text("x")
    else:
        os.kill(run.lease["pid"], getattr(signal, way))
    code = {"SIGTERM": -15, "SIGHUP": -1, "Ctrl-C": -2, "error": 1}[way]
    assert session.end() == [f"ended {code} as it was", "left b''"]


def test_the_shell_has_the_terminal_while_a_run_is_stopped_and_the_keys_are_there_again(
    open_view: Open, tmp_path: Path
) -> None:
    session = open_view()
    session.see(keys.LINE[:30])
    for key in "ce":
        session.type("\x1a")
        session.see("\x1b[?25h")  # the cursor
        session.see("\x1b[?25l")
        session.type(key)
        session.see(f"asked to {keys.ACTIONS[key]}")
    (the_run(tmp_path / "runs").path / "end").touch()
    assert session.end() == ["stopped as it was", "stopped as it was", "ended 0 as it was", "left b''"]


@pytest.mark.parametrize("when", ["before", "while"])
def test_text_is_left_for_the_shell_and_asks_for_nothing(when: str, open_view: Open, tmp_path: Path) -> None:
    text = "cat steps | less\n"
    session = open_view(ahead=text if when == "before" else "")
    if when == "while":
        session.see(keys.LINE[:30])
        session.type(text)
    session.see(keys.OFF[:30])
    run = the_run(tmp_path / "runs")
    assert not asked(run)
    (run.path / "end").touch()
    assert session.end() == ["ended 0 as it was", f"left {text.encode()!r}"]


def test_a_run_in_the_background_reads_nothing_and_is_not_stopped(open_view: Open, tmp_path: Path) -> None:
    session = open_view(how="background")
    session.type("s\n")
    session.see("elapsed")
    run = the_run(tmp_path / "runs")
    (run.path / "end").touch()
    assert session.end() == ["ended 0 as it was", "left b's\\n'"] and not asked(run)


def test_a_run_and_one_who_follows_it_are_steered_by_keys(
    open_session: Open, write_recipe: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    recipe = write_recipe({"train.steps": 200_000, "evaluate.every_steps": 100_000})
    here = open_session(*python_command("etude", "train", str(recipe), "--runs", str(tmp_path / "runs")))
    here.see(keys.LINE[:30])
    here.see("left")  # the first steps are made
    here.type("c")
    here.see("checkpoint: saved as step-")
    run = the_run(tmp_path / "runs")
    follower = open_session(*python_command("etude", "show", str(run.path), "--follow"))
    follower.see(keys.LINE[:30])
    for key, said in (("p", "pause: "), ("e", "evaluate: "), ("p", "resume: "), ("s", "stop: ")):
        follower.type(key)
        follower.see("step")
        follower.see(said)
        here.see(said)
    assert [here.end(), follower.end()] == [
        ["ended 75 as it was", "left b''"], ["ended 0 as it was", "left b''"]
    ]  # fmt: skip
    done = [each.event for each in run.ledger().entries if isinstance(each.event, Control)]
    assert {each.channel for each in done if each.request} == {"view"} and run.state == "stopped"

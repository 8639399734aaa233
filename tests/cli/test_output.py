"""Output is not worth a run; of commands that only print, what cannot be printed is an end, and not a traceback."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.store import list_runs
from tests.conftest import Outcome

Write = Callable[..., Path]


def start(cache: Path, *words: object, **streams: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "ETUDE_CACHE": str(cache), "TERM": "xterm"}
    return subprocess.Popen([sys.executable, "-m", "etude", *map(str, words)], env=environment, **streams)


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_a_run_goes_on_when_its_output_can_no_longer_be_written(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe, writer = write_recipe({"train.steps": 4}), closed_pipe()
    with Path("/dev/full").open("w") as full:
        process = start(cache, "train", recipe, "--runs", tmp_path / "runs", stdout=full, stderr=writer)
    os.close(writer)
    assert process.wait(timeout=120) == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"


def test_under_nohup_a_closed_terminal_neither_stops_nor_kills_a_run(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 60, "records.log_every_steps": 1})
    terminal, end = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup does
    try:
        process = start(cache, "train", recipe, "--runs", tmp_path / "runs", stdout=end, stderr=end, stdin=end)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(end)
    os.read(terminal, 1)  # it has begun to speak
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"


@pytest.mark.parametrize(("place", "code", "says"), [
    ("pipe", 141, b""), ("full", 1, b"error: the output cannot be written: No space left on device\n"),
])  # fmt: skip
def test_a_command_that_prints_ends_in_order_where_it_cannot(cache: Path, place: str, code: int, says: bytes) -> None:
    out = closed_pipe() if place == "pipe" else os.open("/dev/full", os.O_WRONLY)
    process = start(cache, "schema", stdout=out, stderr=subprocess.PIPE)
    os.close(out)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, says)


def test_closed_streams_take_no_line_of_the_journal(
    tmp_path: Path, write_recipe: Write, cache: Path, etude: Callable[..., Outcome]
) -> None:
    recipe = write_recipe({"train.steps": 2})
    words = [sys.executable, "-m", "etude", "train", str(recipe), "--runs", str(tmp_path / "runs")]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    assert subprocess.run(shell, check=False, env={**os.environ, "ETUDE_CACHE": str(cache)}).returncode == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.ledger().damaged == [] and run.state == "finished"

"""A command that trains a run in a session of its own is followed until the run has begun."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from etude.launch.detached import OUTPUT, Detached


def test_a_run_begins_in_a_session_of_its_own_and_keeps_what_it_printed(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    words = ["train", str(write_recipe({"train.steps": 4000})), "--runs", str(tmp_path / "runs")]
    started = Detached.start(words, tmp_path / "runs")
    try:
        while (run := started.begun()) is None:
            assert started.process.poll() is None
            time.sleep(0.02)
        assert os.getsid(started.process.pid) != os.getsid(0)
        assert run.state == "running"
        assert (run.path / OUTPUT).exists()
        assert not list((tmp_path / "runs").glob(".*.output"))
    finally:
        psutil.Process(started.process.pid).kill()
        started.process.wait()


def test_one_that_cannot_begin_tells_its_lines_and_is_forgotten(tmp_path: Path) -> None:
    started = Detached.start(["train", str(tmp_path / "no.toml")], tmp_path / "runs")
    assert started.process.wait() == 2
    assert any(line.startswith("error: ") for line in started.lines())
    assert started.lines() == []
    assert started.begun() is None
    started.forget()
    assert not list((tmp_path / "runs").iterdir())

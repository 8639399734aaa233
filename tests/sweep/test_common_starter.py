"""Stages that workers of a node begin through one process: like processes of their own, and of nobody else."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from etude.errors import FaultError
from etude.processes import python_environment
from etude.records.store import list_runs
from etude.sweep import common_starter
from etude.sweep.common_starter import Forked, start_stage
from tests.processes import wait_for


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Forked | None]]:
    """`start_stage` in a temporary folder of its own; the starter ends with the test."""
    with tempfile.TemporaryDirectory() as folder:  # short, as sockets want it
        monkeypatch.setattr(tempfile, "tempdir", folder)
        kept = list[Any]()

        def start(*words: str, log: str = "log") -> Forked | None:
            mine, theirs = socket.socketpair()
            kept.append(mine)
            with theirs:
                return start_stage(
                    "node", words, log=str(tmp_path / log), current=str(tmp_path), beats=theirs,
                    environment={**python_environment(), "CUDA_VISIBLE_DEVICES": ""},
                )  # fmt: skip

        start.beats = kept  # type: ignore[attr-defined]
        yield start
        for process in psutil.process_iter(["cmdline"]):
            if folder in " ".join(process.info["cmdline"] or []):
                process.kill()


def test_two_stages_are_forks_of_one_process_in_the_folder_that_was_named(
    tmp_path: Path, begin: Callable[..., Forked], write_recipe: Callable[..., Path]
) -> None:
    first = begin("train", str(write_recipe({"train.steps": 100_000})), "--runs", "runs")
    (run,) = wait_for(lambda: list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else [])
    second = begin("show", "nosuch", log="second")
    assert second.wait() == 2 and "there is no run nosuch" in (tmp_path / "second").read_text()
    assert psutil.Process(first.pid).ppid() not in (os.getpid(), 1) and run.lease["pid"] == first.pid
    begin.beats[0].close()  # type: ignore[attr-defined]
    assert first.wait() == -9  # it ends with its worker


def test_a_stage_outlives_the_starter_but_its_worker_is_told(
    tmp_path: Path, begin: Callable[..., Forked], write_recipe: Callable[..., Path]
) -> None:
    stage = begin("train", str(write_recipe({"train.steps": 100_000})), "--runs", "runs")
    wait_for((tmp_path / "runs").exists)
    psutil.Process(stage.pid).parent().kill()  # type: ignore[union-attr]
    with pytest.raises(FaultError, match="the process that starts the trials of this node ended"):
        stage.wait()
    assert psutil.pid_exists(stage.pid)
    begin.beats[0].close()  # type: ignore[attr-defined]
    wait_for(lambda: not psutil.pid_exists(stage.pid))
    assert begin("--help").wait() == 0  # by another starter


@pytest.mark.parametrize("spoil", ["link", "open", "file"])
def test_a_folder_that_another_user_may_have_made_is_not_used(
    tmp_path: Path, begin: Callable[..., Forked | None], monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    monkeypatch.setattr(common_starter.hashlib, "sha256", lambda _: common_starter.hashlib.md5(b""))
    place = Path(tempfile.gettempdir()) / f"etude-starter-{os.geteuid()}-d41d8cd98f00b204"
    (tmp_path / "theirs").mkdir(mode=0o700)
    if spoil == "link":
        place.symlink_to(tmp_path / "theirs")
    elif spoil == "open":
        place.mkdir()
        place.chmod(0o755)
    else:
        place.touch()
    assert begin("--help") is None
    assert not list((tmp_path / "theirs").iterdir())


def test_the_compiler_is_loaded_before_the_first_stage_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_recipe: Callable[..., Path]
) -> None:
    loaded = list[list[str]]()
    monkeypatch.setattr(common_starter, "load_modules", lambda more: loaded.append(list(more)))
    for changes in ({}, {"train.activation_checkpointing": True}):
        recipe = write_recipe(changes)
        common_starter._load_more({"current": str(tmp_path), "words": ["sweep", "stage", recipe.name]})
    for words in (["show", "nosuch"], ["sweep", "stage", "nosuch.toml"]):
        common_starter._load_more({"current": str(tmp_path), "words": words})
    assert loaded == [[], ["torch._dynamo"]]

"""Stages as forks of one process: like processes of their own, whoever is killed."""

import os
from pathlib import Path

import psutil

from etude.recipe.load import to_toml, with_changes
from etude.records.lease import is_locked
from etude.records.store import list_runs
from etude.sweep.grid import load_sweep
from etude.sweep.local import Exit, LocalProcesses
from etude.sweep.starter import Starter
from tests.processes import wait_for
from tests.sweeps import starter_of, sweep_values, write_sweep


def test_forks_have_a_group_and_a_log_of_their_own_and_none_sees_the_end_of_another(tmp_path: Path) -> None:
    starter, ended = Starter(dict(os.environ)), dict[str, int]()
    for name, words in {"good": ["--help"], "bad": ["show", "nosuch"], "wrong": ["nosuch"]}.items():
        starter.start(name, words, tmp_path / name, {"COLUMNS": "70"})

    def all_ended() -> bool:
        ended.update(starter.poll()[0])
        return len(ended) == 3

    wait_for(all_ended)
    assert ended == {"good": 0, "bad": 2, "wrong": 2}
    assert "Usage" in (tmp_path / "good").read_text() and "nosuch" not in (tmp_path / "good").read_text()
    assert "there is no run nosuch" in (tmp_path / "bad").read_text()
    assert not starter.running and not starter.waiting
    starter.close()


def test_forks_outlive_a_starter_that_is_killed_and_the_next_stage_has_another(
    tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"train.steps": [2]})
    processes = LocalProcesses(load_sweep(write_sweep(tmp_path / "sweep.toml", values)))
    recipe = load_sweep(tmp_path / "sweep.toml").trials[0].recipe
    (device,), long = processes.devices, tmp_path / "long.toml"
    long.write_text(to_toml(with_changes(recipe, {"train.steps": 100_000})))
    processes.start("long", device, ["train", str(long), "--runs", str(tmp_path / "runs")], tmp_path / "log")
    (run,) = wait_for(lambda: list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else [])
    first = starter_of()
    first.kill()
    assert wait_for(processes.poll) == [Exit("long", 75)]
    going_on = psutil.Process(run.lease["pid"])
    assert os.getpgid(going_on.pid) == going_on.pid != first.pid and is_locked(run.path)
    going_on.kill()

    processes.start("next", device, ["show", "nosuch"], tmp_path / "next")
    starter_of().kill()  # before it was able to fork anything
    assert wait_for(processes.poll) == [Exit("next", 2)]
    assert "there is no run nosuch" in (tmp_path / "next").read_text()
    processes.close()

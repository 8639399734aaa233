"""The place of a process among ranks, as its environment has it, and the end of one that hangs."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.control.ranks import FOLDER, SOCKET, Place, describe_siblings, follow_launcher, read_place
from etude.errors import InputError
from tests.conftest import Outcome
from tests.forking import server

Write = Callable[..., Path]


def test_the_environment_places_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_place() == Place()
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", FOLDER: str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert read_place() == Place(3, 1, 4, tmp_path)
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("MASTER_ADDR", "host")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert read_place() == Place(3, 1, 4)


BAD_PLACES = [
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 in the environment, but RANK is not set"),
    ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two' in the environment; it must be a number from 1"),
    ({"WORLD_SIZE": "0", "RANK": "0"}, "it must be a number from 1"),
    ({"WORLD_SIZE": "-2", "RANK": "0"}, "it must be a number from 1"),
    ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 in the environment; it must be below WORLD_SIZE, 2"),
    ({"WORLD_SIZE": "2", "RANK": "x" * 900}, "it must be a number from 0"),
    ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "1e3"}, "LOCAL_RANK is '1e3'"),
    ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "7"}, "LOCAL_RANK is 7"),
    ({"WORLD_SIZE": "2", "RANK": "1", FOLDER: "/dev/null"}, f"{FOLDER} is '/dev/null' in the environment"),
    ({"RANK": "1"}, "RANK is 1 in the environment, but WORLD_SIZE is not set"),
    ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR and MASTER_PORT do not say where rank 0 is"),
    ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "?"}, "MASTER_PORT is '?'"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "::1", "MASTER_PORT": "99999"}, "from 0 to 65535"),
]  # fmt: skip


@pytest.mark.parametrize(("variables", "says"), BAD_PLACES, ids=[says[:40] for _, says in BAD_PLACES])
def test_variables_of_ranks_that_contradict_each_other_are_named(
    write_recipe: Write, etude: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], says: str,
) -> None:  # fmt: skip
    recipe = write_recipe({"train.steps": 2})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = etude("train", recipe, "--runs", tmp_path / "runs")
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1, done.err
    assert len(done.err) <= 300 and not (tmp_path / "runs").exists()


def test_one_rank_of_a_scheduler_is_a_run_of_one_process(
    write_recipe: Write, etude: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert etude("train", write_recipe({"train.steps": 2}), "--runs", tmp_path / "runs").code == 0


def test_a_rank_of_torchrun_whose_main_thread_hangs_ends_itself(tmp_path: Path) -> None:
    program = (
        "import time, torch; from etude.engine.world import join_world\n"
        "world = join_world(torch.device('cpu'), idle_seconds=3)\n"
        "world.wait()\n"
        "if world.rank:\n    time.sleep(600)\n"
        "world.wait()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        server().start(
            program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    _, err = ranks[1].communicate(timeout=300)
    _, other = ranks[0].communicate(timeout=300)
    assert "rank 1 hung, and was ended: it did nothing for 3 s" in other, (
        "it waits for the other, which is work"
    )
    assert ranks[1].returncode == 1
    assert "error: rank 1 hung, and was ended: it did nothing for 3 s" in err


def test_processes_that_a_scheduler_starts_beside_each_other_are_told_apart_from_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert describe_siblings() is None
    for count, says in (("1", None), ("abc", None), ("9" * 40, None), ("4", "srun started 4 processes")):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", count)
        found = describe_siblings()
        assert found is None if says is None else found is not None and found.startswith(says)


@pytest.mark.parametrize("descriptor", ["abc", "-1", "99999", ""])
def test_a_launcher_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, descriptor: str) -> None:
    monkeypatch.setenv(SOCKET, descriptor)
    with pytest.raises(InputError, match=f"{SOCKET} is '{descriptor}' in the environment"):
        follow_launcher()

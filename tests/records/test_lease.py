"""One process at a time holds a run, and its lease tells who and in what state."""

import fcntl
import json
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.lease import is_alive, is_locked, leave, lock_run, read_lease, write_lease
from etude.records.store import create_run, hold_run, list_runs

Make = Callable[..., Recipe]


def test_a_second_writer_is_refused_by_name(tmp_path: Path, make_recipe: Make) -> None:
    writer = create_run(tmp_path, make_recipe())
    with pytest.raises(InputError, match=rf"run {writer.run.name} is in use by process \d+"):
        hold_run(writer.run)
    writer.close("stopped")
    hold_run(writer.run).close("stopped")


def test_of_many_processes_one_holds_the_run(tmp_path: Path, make_recipe: Make) -> None:
    create_run(tmp_path, make_recipe()).close("stopped")
    (run,) = list_runs(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, winners = context.Barrier(8), context.Queue()

    def contend() -> None:
        barrier.wait()
        try:
            hold_run(run)
            winners.put(1)
        except InputError:
            winners.put(0)
        barrier.wait()

    children = [context.Process(target=contend) for _ in range(8)]
    for child in children:
        child.start()
    assert sum(winners.get(timeout=20) for _ in children) == 1
    for child in children:
        child.join()


def test_a_lock_is_let_go_with_its_descriptor(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    descriptor = lock_run(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(
        InputError, match="is in use by another process; wait for it"
    ):  # there is no lease yet
        lock_run(tmp_path)
    os.close(descriptor)
    assert not is_locked(tmp_path)


def test_a_lease_names_its_process_and_whether_it_ended_by_itself(tmp_path: Path) -> None:
    write_lease(tmp_path, "running")
    lease = read_lease(tmp_path)
    assert (lease["pid"], lease["host"], lease["state"]) == (os.getpid(), socket.gethostname(), "running")
    assert "left" not in lease and is_alive(lease)
    leave(tmp_path, os.getpid())  # only a finished run is left
    assert "left" not in read_lease(tmp_path)
    write_lease(tmp_path, "finished")
    assert read_lease(tmp_path)["left"] is False
    leave(tmp_path, os.getpid() + 1)  # a copy of the process
    assert read_lease(tmp_path)["left"] is False
    leave(tmp_path, os.getpid())
    assert read_lease(tmp_path)["left"] is True


def test_another_process_of_the_same_number_is_not_the_one_of_the_lease(tmp_path: Path) -> None:
    write_lease(tmp_path, "running")
    lease = read_lease(tmp_path)
    assert not is_alive(lease | {"heartbeat": 1e9})  # from before this process was born
    child = multiprocessing.get_context("fork").Process(target=lambda: None)
    child.start()
    child.join()
    assert not is_alive(lease | {"pid": child.pid})


def test_a_lease_of_another_state_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text(json.dumps({"state": "resting"}))
    with pytest.raises(InputError, match=r"lease\.json is damaged: state: 'resting' is none of running"):
        read_lease(tmp_path)


def test_one_who_only_asks_whether_a_run_is_held_keeps_nobody_from_it(
    tmp_path: Path, make_recipe: Make
) -> None:
    create_run(tmp_path, make_recipe()).close("stopped")
    (run,) = list_runs(tmp_path)
    asks, held = threading.Event(), os.open(run.path / ".lock", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)  # as is_locked does, for longer
    threading.Timer(0.01, lambda: (fcntl.flock(held, fcntl.LOCK_UN), asks.set())).start()
    hold_run(run).close("stopped")
    assert asks.wait(10)
    os.close(held)

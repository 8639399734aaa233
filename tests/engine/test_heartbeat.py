"""A rank that is stopped, killed or fails ends the others soon, and they name it; one that works does not."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from etude.engine.heartbeat import Launched
from etude.engine.world import World, join_world
from tests.ranks import Forks

HOST = socket.gethostname()


def start(folder: Path, act: Callable[[World, int], None]) -> Forks:
    """Two ranks that add up and act again and again, until one of them is told of another's end."""

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        world, error = join_world(torch.device("cpu"), idle_seconds=120, silence_seconds=6), None
        try:
            for turn in range(10**6):
                world.sum([torch.ones(1)])
                act(world, turn)
                if turn == 2:
                    (folder / f"goes-{rank}").touch()
        except Exception as raised:
            error = raised
            raise
        finally:
            world.leave(error)

    forks = Forks(2, live, folder)
    while not all((folder / f"goes-{rank}").exists() for rank in range(2)):
        assert any(each.is_alive() for each in forks.ranks), forks.wait()
        time.sleep(0.05)
    return forks


def adds(world: World, turn: int) -> None:
    time.sleep(0.05)


def waits(world: World, turn: int) -> None:
    world.wait()
    time.sleep(0.05)


@pytest.mark.parametrize("act", [adds, waits])
def test_a_stopped_rank_is_named(tmp_path: Path, act: Callable[[World, int], None]) -> None:
    forks = start(tmp_path, act)
    os.kill(forks.pid(1), signal.SIGSTOP)
    said = forks.wait(of=(0,))
    assert said[0].startswith(f"LostRankError: rank 1 on {HOST} says nothing for "), said
    assert said[0].endswith(f": its process {forks.pid(1)} is stopped; the same command continues")


def test_the_stop_of_rank_0_which_holds_the_store_ends_the_others(tmp_path: Path) -> None:
    forks = start(tmp_path, adds)
    os.kill(forks.pid(0), signal.SIGSTOP)
    said = forks.wait(of=(1,))
    assert "held by rank 0 there, does not answer for 6 s" in said[1] or "says nothing" in said[1], said


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    forks = start(tmp_path, adds)
    os.kill(forks.pid(1), signal.SIGKILL)
    said = forks.wait(of=(0,))
    assert said[0].startswith(f"LostRankError: rank 1 on {HOST} says nothing for "), said
    assert f"its process {forks.pid(1)} is gone" in said[0]


def test_the_others_are_told_of_an_error(tmp_path: Path) -> None:
    def fails(world: World, turn: int) -> None:
        if turn == 5 and world.rank == 1:
            raise ValueError("row 7 is broken\nand more")

    said = start(tmp_path, fails).wait()
    assert said[1] == "ValueError: row 7 is broken\nand more"
    wanted = f"rank 1 on {HOST} ended: ValueError: row 7 is broken; the same command continues"
    assert said[0] == f"LostRankError: {wanted}"


def test_a_rank_that_works_longer_than_the_limit_is_not_lost(tmp_path: Path) -> None:
    def works(world: World, turn: int) -> None:
        if turn == 4 and world.rank == 1:  # the other is in a sum, then in a wait of the store
            time.sleep(9)
        if turn == 5 and world.rank == 0:  # computes without a word, as its other threads get no turn
            sys.setswitchinterval(60)
            end = time.monotonic() + 9
            while time.monotonic() < end:
                pass
            sys.setswitchinterval(0.005)
        if turn == 6:
            (tmp_path / f"works-{world.rank}").touch()
        if turn > 6:
            raise SystemExit
        world.wait()

    said = start(tmp_path, works).wait()
    assert (tmp_path / "works-0").exists() and (tmp_path / "works-1").exists(), said
    assert not any("LostRank" in each for each in said.values())


def test_the_word_of_a_launcher_is_read(tmp_path: Path) -> None:
    others = Launched(tmp_path)
    assert others.why_lost() is None
    (tmp_path / "lost").write_text("rank 1 was killed by SIGKILL")
    assert others.why_lost(waits=True) == "rank 1 was killed by SIGKILL"

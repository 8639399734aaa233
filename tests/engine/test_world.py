"""Ranks agree and wait in a store that does not grow; no float64 reaches a device, since mps has none."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.overrides import TorchFunctionMode

from etude.engine.world import World, join_world
from etude.errors import InputError
from etude.interruption import Abandoned
from etude.records.events import Finding
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_labelled, write_pairs


class NoDouble(TorchFunctionMode):
    """Fails where a float64 tensor is made on a device, or moved to one, that is named by an object as etude
    does.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*args, *(kwargs or {}).values()]
        result = function(*args, **(kwargs or {}))
        if any(isinstance(value, torch.device) for value in given) and isinstance(result, torch.Tensor):
            assert result.dtype != torch.float64, f"{function.__name__} brings float64 to a device"
        return result


KINDS: dict[str, dict[str, Any]] = {
    "causal": {"evaluate.prompts": ["def "], "evaluate.sample_tokens": 4},
    "seq2seq": {
        "model": {"kind": "encoder-decoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "seq2seq",
        "data.train": [{"path": "pairs.jsonl", "field": "source", "target": "target"}], "evaluate.answers": 2,
        "evaluate.answer_tokens": 4,
    },
    "classification": {
        "model": {"kind": "encoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "classification", "data.train": [{"path": "labelled.jsonl", "label": "label"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_float64_reaches_the_device(tmp_path: Path, make_recipe: Callable[..., Any], kind: str) -> None:
    files = {
        "pairs.jsonl": write_pairs(tmp_path / "pairs.jsonl", 40),
        "labelled.jsonl": write_labelled(tmp_path / "labelled.jsonl", 40),
    }
    changes = dict(KINDS[kind])
    if "data.train" in changes:
        changes["data.train"] = [{**row, "path": str(files[row["path"]])} for row in changes["data.train"]]
    recipe = make_recipe({**changes, "train.steps": 3, "evaluate.every_steps": 3})
    with NoDouble():
        run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert run.state == "finished"
    found = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    assert not [finding for finding in found if "failed" in finding.what]


@pytest.mark.parametrize("kind", ["file", "tcp"])
def test_the_store_of_ranks_that_agree_and_wait_again_and_again_does_not_grow(
    tmp_path: Path, kind: str
) -> None:
    def open_store(rank: int) -> Any:
        if kind == "file":
            return dist.FileStore(str(tmp_path / "store"), 3)
        return dist.TCPStore("localhost", port, is_master=rank == 0, wait_for_workers=False)

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    worlds = [World(torch.device("cpu"), rank, 3, open_store(rank)) for rank in range(3)]
    read: list[list[Any]] = [[], [], []]

    def take_part(world: World, turns: range) -> None:
        for turn in turns:
            read[world.rank].append(world.agree({"turn": turn} if world.is_main else None))
            if turn % 4 == 0:
                world.wait()

    sizes = []
    for turns in (range(20), range(20, 100)):
        threads = [threading.Thread(target=take_part, args=(world, turns)) for world in worlds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worlds[0].store.check(["anything"])  # a store of files counts what it has read
        sizes.append(worlds[0].store.num_keys())
    assert read == [[{"turn": turn} for turn in range(100)]] * 3
    assert sizes[0] == sizes[1] < 10


@pytest.mark.parametrize("is_early", [True, False])
def test_ranks_leave_work_together_or_not_at_all(tmp_path: Path, is_early: bool) -> None:
    worlds = [
        World(torch.device("cpu"), rank, 3, dist.FileStore(str(tmp_path / "store"), 3)) for rank in range(3)
    ]
    done: list[list[Any]] = [[], [], []]
    unwanted = threading.Event()

    def work(world: World, turn: int) -> None:
        """Rank 0 works alone while the others wait for it; rank 1 is told that the work is unwanted."""
        is_told = world.rank == 1 and turn == 3
        try:
            with world.together(lambda: is_told and (is_early or unwanted.is_set())) as check:
                if world.is_main:
                    unwanted.set()
                    while is_early and turn == 3:  # until the others have left
                        check()
                result = world.agree(turn if world.is_main else None)
        except Abandoned:
            result = "left"
        done[world.rank].append(result)
        done[world.rank].append(world.agree(-turn if world.is_main else None))

    def live(world: World) -> None:
        for turn in range(1, 6):
            work(world, turn)

    threads = [threading.Thread(target=live, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = done[0][4]
    assert done[0] == [1, -1, 2, -2, third, -3, 4, -4, 5, -5] and done[1:] == [done[0]] * 2
    assert third == "left" if is_early else third in ("left", 3)


def test_ranks_gather_a_value_of_each_in_order_and_know_of_a_shortage_on_one(tmp_path: Path) -> None:
    worlds = [
        World(torch.device("cpu"), rank, 3, dist.FileStore(str(tmp_path / "store"), 3)) for rank in range(3)
    ]
    gathered: list[list[Any]] = [[], [], []]

    def live(world: World) -> None:
        for turn in range(3):
            gathered[world.rank].append(world.gather({"rank": world.rank, "turn": turn}))

    threads = [threading.Thread(target=live, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gathered == [[[{"rank": rank, "turn": turn} for rank in range(3)] for turn in range(3)]] * 3
    assert not worlds[0].has_shortage()
    worlds[2].tell_shortage()
    assert worlds[0].has_shortage() and not World(torch.device("cpu")).has_shortage()
    assert World(torch.device("cpu")).gather(7) == [7]


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 100_000, "a\nerror: b"])
def test_a_host_that_nobody_knows_is_named_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("etude.engine.meeting._NAME_SECONDS", 0.0)
    place = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": host, "MASTER_PORT": "29500"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match=r"^rank 1 cannot meet the others at .*:29500 \(MASTER_ADDR\): "
    ) as e:
        join_world(torch.device("cpu"))
    assert len(str(e.value)) < 300 and "\n" not in str(e.value)

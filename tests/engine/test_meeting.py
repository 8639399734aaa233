"""Ranks find each other in a store that has the words of those before them."""

import socket
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from etude.control.ranks import Place
from etude.engine.meeting import meet, open_store
from etude.errors import InputError


def test_a_port_that_a_program_of_this_machine_has_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as other:  # the store of torch, on all addresses, is not refused
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        with pytest.raises(InputError, match="another program listens there; give MASTER_PORT a free one"):
            open_store(Place(0, 0, 2))


def test_ranks_of_each_attempt_have_a_part_of_the_store_for_themselves() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = dist.TCPStore("localhost", port, is_master=True, wait_for_workers=False)
    found: list[list[Any]] = []
    for late in (0, 1, 2):
        parts: list[Any] = [None] * 3

        def live(rank: int, late: int = late, parts: list[Any] = parts) -> None:
            time.sleep(0.3 * (rank == late))
            client = dist.TCPStore("localhost", port, is_master=False, wait_for_workers=False)
            parts[rank] = meet(client, rank, 3)

        threads = [threading.Thread(target=live, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not parts[1].check(["word"])
        parts[0].set("word", str(late))
        assert [each.get("word") for each in parts] == [str(late).encode()] * 3
        found.append(parts)
    assert [parts[2].get("word") for parts in found] == [b"0", b"1", b"2"]
    assert server.num_keys() < 40


@pytest.mark.parametrize(("rank", "awaited"), [(0, "rank 1"), (1, "rank 0")])
def test_a_rank_that_never_comes_is_named_in_the_end(rank: int, awaited: str) -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(TimeoutError, match=f"{awaited} has not come"):
        meet(store, rank, 2)

"""A place of their own for the ranks of one attempt, in a store that has words of earlier ones."""

import errno
import os
import socket
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from etude.control.ranks import Place
from etude.errors import InputError
from etude.text import shorten

_LOOK_SECONDS = 0.05
_MEETING_PATIENCE = timedelta(hours=4)  # under torchrun
_NAME_SECONDS = 30.0  # for a name to be known, as those of pods are not at once
_TELL_SECONDS = 60.0  # until a rank that waits for them says so


def open_store(place: Place) -> Any:
    """Files in the folder of our launcher; under torchrun the store that it opened."""
    if place.folder is not None:
        return dist.FileStore(str(place.folder / "store"), place.size)  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    here = f"rank {place.rank} cannot meet the others at {shorten(host, 80)}:{port} (MASTER_ADDR)"
    waits = f"rank {place.rank} waits for the others at {shorten(host, 80)}:{port}, who may prepare data\n"
    tell = threading.Timer(_TELL_SECONDS, os.write, (2, waits.encode("utf-8", "replace")))
    tell.daemon = True
    tell.start()
    try:
        _find_host(host)
        if place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            _require_free(host, int(port))
        store, _, _ = next(rendezvous("env://", place.rank, place.size, timeout=_MEETING_PATIENCE))
        return meet(store, place.rank, place.size)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{here}: {shorten(str(error).partition(chr(10))[0], 100)}") from None
    finally:
        tell.cancel()


def meet(store: Any, rank: int, size: int) -> Any:
    """A part of a store that the ranks of this attempt alone know.

    torchrun keeps one store over all restarts of its ranks, and its count of them differs from machine to
    machine. So each rank leaves a new name, and rank 0 answers it with that of the part.
    Raises: TimeoutError if not all come within the time limit of the store; RuntimeError if it is gone.
    """
    mine, end = uuid.uuid4().hex, time.monotonic() + store.timeout.total_seconds()
    if rank:
        store.set(_of("name", rank), mine)
        store.compare_set(_of("answer", rank), "", "")
        while True:
            name, _, part = store.get(_of("answer", rank)).decode().partition(" ")
            if name == mine:
                break
            _look_again(end, "rank 0")
        own = dist.PrefixStore(part, store)  # type: ignore[attr-defined]
        own.set(_of("here", rank), "")
        return own
    own = dist.PrefixStore(mine, store)  # type: ignore[attr-defined]
    absent = set(range(1, size))
    for each in absent:
        store.compare_set(_of("name", each), "", "")
    answered = dict.fromkeys(absent, "")
    while absent:
        for each, name in zip(sorted(absent), store.multi_get([_of("name", one) for one in sorted(absent)])):
            if (name := name.decode()) != answered[each]:  # one of an attempt before, perhaps
                store.set(_of("answer", each), f"{name} {mine}")
                answered[each] = name
        absent = {each for each in absent if not own.check([_of("here", each)])}
        if absent:
            _look_again(end, f"rank {min(absent)}")
    return own


def _require_free(host: str, port: int) -> None:
    """Find out if another program listens at the address: the store of torch would wait for it without end.

    That store listens on all addresses, and is not refused where another has one of them. Raises: OSError.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    try:
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError("another program listens there; give MASTER_PORT a free one") from None


def _look_again(end: float, awaited: str) -> None:
    if time.monotonic() > end:
        raise TimeoutError(f"{awaited} has not come")
    time.sleep(_LOOK_SECONDS)


def _of(what: str, rank: int) -> str:
    return f"{what} of rank {rank}"


def _find_host(name: str) -> None:
    """Wait for a while for the address of a host, for which torch waits for hours. Raises: OSError."""
    end = time.monotonic() + _NAME_SECONDS
    while True:
        try:
            socket.getaddrinfo(name, None)
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)

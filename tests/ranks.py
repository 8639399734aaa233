"""Ranks that are forks of the test, which has loaded torch: they meet as those of torchrun or of etude do."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path


class Forks:
    """Ranks that do the same, each with its number; what one raises goes to a file.

    They may train where this process has not: autograd does not go through a fork that follows its use.

    folder: where those of etude's launcher meet; without it as under torchrun, with the store on rank 0.
    """

    def __init__(
        self, ranks: int, do: Callable[[int], object], out: Path, *, folder: Path | None = None
    ) -> None:
        self.out = out
        out.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {"WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        if folder is None:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        else:
            environment["ETUDE_RANKS_FOLDER"] = str(folder)
        context = multiprocessing.get_context("fork")
        self.ranks: list[BaseProcess] = [
            context.Process(target=_live, args=(rank, do, environment, out)) for rank in range(ranks)
        ]
        for each in self.ranks:
            each.start()

    def pid(self, rank: int) -> int:
        pid = self.ranks[rank].pid
        assert pid is not None
        return pid

    def wait(self, *, of: tuple[int, ...] | None = None, seconds: float = 300.0) -> dict[int, str]:
        """Wait so long for ranks to end, and kill the others; what each has raised."""
        try:
            for rank in range(len(self.ranks)) if of is None else of:
                self.ranks[rank].join(seconds)
                assert self.ranks[rank].exitcode is not None, f"rank {rank} still lives"
        finally:
            for each in self.ranks:
                each.kill()
                each.join()
        return {rank: self.said(rank) for rank in range(len(self.ranks))}

    def said(self, rank: int) -> str:
        path = self.out / f"raised-{rank}"
        return path.read_text() if path.exists() else ""


def _live(rank: int, do: Callable[[int], object], environment: dict[str, str], out: Path) -> None:
    code = 1
    try:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        do(rank)
        code = 0
    except BaseException as error:
        (out / f"raised-{rank}").write_text(f"{type(error).__name__}: {error}")
        (out / f"trace-{rank}").write_text(traceback.format_exc())
        if folder := environment.get("ETUDE_RANKS_FOLDER"):  # as the launcher does
            (Path(folder) / "lost").write_text(f"rank {rank}: {error}")
    finally:
        os._exit(code)

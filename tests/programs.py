"""Programs of the tests, each a fork of one process, or several as the ranks of torchrun."""

import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.forking import Answer, server

_HERE = Path(__file__).parent


def run_program(
    name: str, words: Sequence[object], cache: Path, *, ranks: int = 1, seconds: float = 240
) -> Answer:
    """Run a program of tests/ in so many ranks, for so many seconds at most."""
    script = str(_HERE / f"{name}.py")
    return server().run(
        _HERE.parent, [], seconds=seconds, environment={**os.environ, "ETUDE_CACHE": str(cache)},
        first=f"from tests.programs import be; be({script!r}, {[*map(str, words)]!r}, {ranks})",
    )  # fmt: skip


def be(script: str, words: list[str], ranks: int) -> None:
    """Be a program, or what starts its ranks: as torchrun, with a store for them, and none outlives another
    that failed.
    """
    from tests import undrawn  # noqa: F401 - nobody looks at the charts

    sys.argv = [script, *words]
    if ranks == 1:
        runpy.run_path(script, run_name="__main__")
        raise SystemExit
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    crew = [_fork_rank(script, rank, ranks, port) for rank in range(ranks)]
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    while crew:
        ended, status = os.wait()
        crew.remove(ended)
        if status:
            for each in crew:
                os.kill(each, signal.SIGKILL)
            raise SystemExit(1)
    del store
    raise SystemExit


def _fork_rank(script: str, rank: int, ranks: int, port: int) -> int:
    if pid := os.fork():
        return pid
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True", GLOO_SOCKET_IFNAME="lo")
    code = 1
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

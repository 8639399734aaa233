"""A run and its page are processes of their own: kill -9 of the server in the middle changes no bit of the run, and
neither of them opens a port to others.
"""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from etude.recipe.load import recipe_from
from etude.records.events import Control
from etude.run import Training
from etude.start import Options
from tests.bases import write_corpus
from tests.processes import Life, final_bits, wait_for
from tests.recipes import tiny
from tests.ui.serving import JSON, PATIENCE_SECONDS


class Server:
    """`etude ui` in a process of its own, and one that has opened its link."""

    def __init__(self, runs: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "etude", "ui", str(runs), "--no-open", "--port", "0"],
            stdout=subprocess.PIPE, text=True, env=os.environ.copy(),
        )  # fmt: skip
        assert self.process.stdout is not None
        link = urlsplit(self.process.stdout.readline().strip())
        self.place, self.cookie = f"{link.hostname}:{link.port}", ""
        answer = self.ask("GET", f"/?{link.query}")
        self.cookie = str(answer.getheader("set-cookie")).split(";")[0]

    def ask(self, method: str, path: str, values: Any = None) -> http.client.HTTPResponse:
        """The answer to a request; the connection of one to /api/events stays open."""
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE_SECONDS)
        body = None if values is None else json.dumps(values).encode()
        connection.request(method, path, body, {"cookie": self.cookie, **(JSON if body else {})})
        answer = connection.getresponse()
        assert answer.status in (200, 303), answer.read()
        return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "watched").mkdir()
    found = Server(tmp_path / "watched")
    yield found
    found.process.kill()
    found.process.wait(60)


def test_a_run_whose_page_and_server_are_killed_ends_with_the_bits_of_one_without_a_page(
    tmp_path: Path, server: Server
) -> None:
    recipe = recipe_from(tiny(write_corpus(tmp_path / "corpus.jsonl")))
    for _ in Training(recipe, Options(runs=tmp_path / "alone")):
        pass
    training = Training(recipe, Options(runs=tmp_path / "watched"))
    for step in training:
        identity = training.run.info["id"]
        if step.number == 4:
            wait_for(
                lambda identity=identity: identity in server.ask("GET", "/api/runs").read().decode(),
                server.process,
            )
            told = server.ask("GET", f"/api/events?runs={identity}&since=0")
            while not told.readline().startswith(b"event: points"):
                pass
            asked = server.ask("POST", f"/api/runs/{identity}/requests", {"action": "checkpoint"})
            assert json.load(asked)["request"]
        if step.number == 7:
            server.process.kill()
            assert server.process.wait(60) == -9
    assert training.run.state == "finished"
    events = [each.event for each in training.run.ledger().entries]
    assert "page" in [event.channel for event in events if isinstance(event, Control)]
    assert final_bits(tmp_path / "watched") == final_bits(tmp_path / "alone")


def test_while_two_ranks_train_and_a_page_listens_no_socket_is_open_to_others(
    tmp_path: Path, server: Server, write_recipe: Callable[..., Path], cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 100_000, "train.devices": 2, "checkpoint.every_steps": 5})
    life = Life(recipe, tmp_path / "watched", cache)
    try:
        life.wait_for_progress()
        (run,) = wait_for(lambda: json.load(server.ask("GET", "/api/runs"))["runs"], life.process)
        told = server.ask("GET", f"/api/events?runs={run['id']}&since=0")
        while not told.readline().startswith(b"event: points"):
            pass
        ranks, page = (_ends(psutil.Process(each.pid)) for each in (life.process, server.process))
        own = int(server.place.rpartition(":")[2])
        assert {port for address, port in page if port} == {own}
        assert {address for address, _ in [*ranks, *page]} <= {"127.0.0.1", "::1"}
    finally:
        life.process.terminate()
        life.process.wait(300)


def _ends(process: psutil.Process) -> list[tuple[str, int]]:
    """Address and port of each socket of a process and its descendants at which others may call; those that talk
    already have the port 0.
    """
    return [
        (each.laddr.ip, 0 if each.raddr else each.laddr.port)
        for one in (process, *process.children(recursive=True))
        for each in one.net_connections("inet")
    ]

"""A real server of a tiny model on a free port of loopback, in a thread."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from etude.serve.app import make_app
from etude.serve.engine import Draw, End, Engine, Limits
from etude.serve.opened import Opened, Pooling, open_model
from etude.serve.reader import Reader
from etude.speaker import Speaker
from etude.ui.gate import Gate
from etude.ui.server import open_address, serve

PATIENCE_SECONDS = 120.0


@dataclass
class Served:
    """A server, its model and its token."""

    opened: Opened
    engine: Engine | None
    port: int
    token: str
    faults: list[str]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self) -> OpenAI:
        """The public client, which tries nothing again."""
        return OpenAI(base_url=self.url, api_key=self.token, max_retries=0, timeout=PATIENCE_SECONDS)

    def post(self, path: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, Any]:
        """Status and JSON of a body as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self.headers, "content-type": "application/json", **headers}
        answer = httpx.post(f"{self.url}{path}", content=content, headers=sent, timeout=PATIENCE_SECONDS)
        return answer.status_code, answer.json()


@contextlib.contextmanager
def serving(
    given: Path | str, runs: Path = Path(), *, pooling: Pooling = "mean", **limits: Any
) -> Iterator[Served]:
    """Serve the model of a run or of a folder while the block runs."""
    faults: list[str] = []
    bounds = Limits(**limits)
    opened = open_model(str(given), runs, context=bounds.context, pooling=pooling, told=lambda text: None)
    engine = Engine(opened.speaker, bounds, faults.append) if opened.speaker else None
    reader = Reader(opened.precision, bounds, faults.append)
    address, ready = open_address(port=0), threading.Event()
    app = make_app(opened, engine, reader)
    server = serve(Gate(app, address.token, address.names, is_api=True), ready.set, 512)
    thread = threading.Thread(target=server.run, args=(address.sockets,))
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        yield Served(opened, engine, address.sockets[0].getsockname()[1], address.token, faults)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


class Collected:
    """The tokens and ends of answers, as an engine tells them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens: dict[Any, list[int]] = {}
        self.ends: dict[Any, End] = {}
        self._ended = threading.Semaphore(0)

    def ask(self, prompt: list[int], draw: Draw) -> Any:
        """The answer that is asked for."""
        (answer,) = self.engine.ask([(prompt, draw)], self._take)
        return answer

    def wait(self, count: int = 1) -> None:
        """Wait until so many more have ended."""
        for _ in range(count):
            assert self._ended.acquire(timeout=PATIENCE_SECONDS)

    def _take(self, answer: Any, event: int | End) -> None:
        if isinstance(event, End):
            self.ends[answer] = event
            self._ended.release()
        else:
            self.tokens.setdefault(answer, []).append(event)


@contextlib.contextmanager
def collecting(speaker: Speaker, **limits: Any) -> Iterator[Collected]:
    """An engine without a server."""
    faults: list[str] = []
    engine = Engine(speaker, Limits(**limits), faults.append)
    try:
        yield Collected(engine)
    finally:
        engine.close()
    assert not faults

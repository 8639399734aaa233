"""A real server of the page on a free port of loopback, and clients of it."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.ui.gate import Gate
from etude.ui.library import Library
from etude.ui.server import Address, make_server, open_address

PATIENCE_SECONDS = 120.0  # for what always comes, on a machine that has much else to do
JSON = {"content-type": "application/json", "x-etude": "1"}


@dataclass
class Serving:
    """A server that runs in a thread, and the cookie that its link gives."""

    address: Address
    cookie: str
    faults: list[str]

    @property
    def port(self) -> int:
        return int(self.address.sockets[0].getsockname()[1])

    def open(self, seconds: float = 400.0) -> http.client.HTTPConnection:
        """A connection of a client that knows the token."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer, for one who has the cookie."""
        connection = self.open()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered before all was sent
                connection.request(method, path, body, {"cookie": self.cookie, **headers})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        status, _, body = self.ask(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def post(self, path: str, values: Any) -> tuple[int, Any]:
        """Status and JSON of a request that the page would make."""
        status, _, body = self.ask(path, method="POST", body=json.dumps(values).encode(), **JSON)
        return status, json.loads(body)


@contextlib.contextmanager
def serving(
    *folders: Path, read_only: bool = False, port: int = 0, url: str | None = None
) -> Iterator[Serving]:
    """Serve folders while the block runs. url: of the page at a proxy."""
    address, ready, faults = open_address(port=port, url=url), threading.Event(), list[str]()
    server = make_server(
        Library(folders), address, "1.2.3", read_only=read_only, started=ready.set, told=faults.append
    )
    thread = threading.Thread(target=server.run, args=(address.sockets,))
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        name = Gate(_nothing, address.token).cookie
        yield Serving(address, f"{name}={address.token}", faults)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError

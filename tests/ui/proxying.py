"""A reverse proxy as those of Jupyter and code-server: it serves other servers below a path of its own."""

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.ui.serving import PATIENCE_SECONDS


@dataclass(frozen=True)
class Proxying:
    """A proxy on a port of loopback, and the path below which it serves another server."""

    port: int
    path: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}/"


@contextlib.contextmanager
def proxying(
    path: str, *, strips: bool = True, host: str | None = None
) -> Iterator[tuple[Proxying, list[int]]]:
    """A proxy below a path, while the block runs, and a list for the port that it leads to.

    strips: whether it takes its path away, as `/proxy/8171/` does and `/absproxy/8171/` does not.
    host: that it names in place of the one that the browser named
    """
    leads_to: list[int] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self.path.startswith(f"{path}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            upstream = http.client.HTTPConnection("127.0.0.1", leads_to[0], timeout=PATIENCE_SECONDS)
            upstream.putrequest(
                self.command, self.path[len(path) :] if strips else self.path, skip_host=True,
                skip_accept_encoding=True,
            )  # fmt: skip
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    upstream.putheader(name, host if host and name.lower() == "host" else value)
            upstream.putheader("x-forwarded-prefix", path)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):  # who listened is gone
                while piece := answer.read1(1 << 16):
                    self.wfile.write(piece)
            upstream.close()
            self.close_connection = True

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Proxying(server.server_port, path), leads_to
    finally:
        server.shutdown()
        server.server_close()

"""A small server on loopback that speaks the documented behaviour of LINE's Messaging API, and its faults."""

import http.server
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TOKEN, USER = "token/of+the=line==", "U" + "0123456789abcdef" * 2


class Service:
    """What the server holds: the faults to come, the messages that were delivered, and what was asked.

    faults  each push takes the next one: "ok", "401", "400", "500", "lost" (accepted, then no answer in time),
            "drop" (the connection ends without an answer and nothing is accepted), "rate", "hang"
    quota   messages of the month; None is no limit
    """

    def __init__(self, faults: list[str] | None = None, quota: int | None = 200, members: int = 1) -> None:
        self.faults, self.quota, self.members = deque(faults or []), quota, members
        self.delivered: list[str] = []
        self.keys: dict[str, str] = {}
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.used = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.arrived = threading.Event()
        self.url = ""


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """Run the server of a service until the block ends; its address is `service.url`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.asked.append(f"GET {self.path}")
            if self.path.endswith("/members/count"):
                return self._answer(200, {"count": service.members})
            if self.path.endswith("/consumption"):
                return self._answer(200, {"totalUsage": service.used})
            if service.quota is None:
                return self._answer(200, {"type": "none"})
            return self._answer(200, {"type": "limited", "value": service.quota})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with service.lock:
                service.asked.append(f"POST {self.path}")
                service.bodies.append(body)
                service.headers.append(dict(self.headers))
                fault = service.faults.popleft() if service.faults else "ok"
                answer = self._push(fault, body)
            service.arrived.set()
            if fault in ("lost", "hang"):
                service.released.wait(20)
            elif answer is not None:
                self._answer(*answer)

        def _push(self, fault: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            """What LINE does with a push: an accepted retry key is a conflict, whatever else is wrong."""
            if fault in ("drop", "hang"):
                self.close_connection = True
                return None
            if fault in ("500", "400", "301"):
                return int(fault), {"message": "The property, 'to', is invalid"}
            if self.path != "/v2/bot/message/push":  # that of a webhook
                return (401, {}) if fault == "401" else (200, {})
            if fault == "401" or self.headers["Authorization"] != f"Bearer {TOKEN}":
                return 401, {"message": "Authentication failed"}
            if fault == "rate":
                return 429, {"message": "The API rate limit has been exceeded"}
            key = self.headers["X-Line-Retry-Key"]
            if key in service.keys:
                return 409, {"message": "The retry key is already accepted"}
            if service.quota is not None and service.used + service.members > service.quota:
                return 429, {"message": "You have reached your monthly limit."}
            text = body["messages"][0]["text"]
            if len(text.encode("utf-16-le")) > 10_000:
                return 400, {"message": "Length must be between 0 and 5000"}
            service.keys[key] = text
            service.delivered.append(text)
            service.used += service.members
            return 200, {"sentMessages": [{"id": "1"}]}

        def _answer(self, status: int, values: dict[str, Any]) -> None:
            data = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 301:
                self.send_header("Location", service.url + "/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield service
    finally:
        service.released.set()
        server.shutdown()
        server.server_close()


def wait_until(is_true: Any, seconds: float = 30.0) -> None:
    """Wait until something is true. Raises: AssertionError after a generous time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)

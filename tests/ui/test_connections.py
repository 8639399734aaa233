"""Slow and many clients do not keep a good one out."""

import socket

import pytest

from etude.ui import connections, gate
from tests.ui.serving import PATIENCE_SECONDS, Serving, serving


def slow_sockets(served: Serving, count: int, start: bytes) -> list[socket.socket]:
    found = []
    for _ in range(count):
        each = socket.create_connection(("127.0.0.1", served.port))
        each.sendall(start)
        found.append(each)
    return found


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "])
def test_200_slow_sockets_do_not_stop_a_good_client(start: bytes) -> None:
    """Slow clients: 200 that never end their request; a training beside them is in another process."""
    with serving() as served:
        slow = slow_sockets(served, 200, start)
        for _ in range(10):
            assert served.get("/api/about")["version"] == "1.2.3"
        for each in slow:
            each.close()


def test_a_request_that_does_not_come_whole_in_time_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with serving() as served:
        for start in (b"", b"GET / HTTP/1.1\r\nhost: 127"):
            (slow,) = slow_sockets(served, 1, start)
            slow.settimeout(PATIENCE_SECONDS)
            assert slow.recv(100) == b""
            slow.close()


def test_the_second_request_of_a_connection_has_a_limit_of_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as served:
        connection = served.open()
        connection.request("GET", "/api/about", headers={"cookie": served.cookie})
        assert connection.getresponse().read()
        monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
        assert connection.sock is not None
        connection.sock.sendall(b"GET /api")
        assert connection.sock.recv(100) == b""
        connection.close()


def test_beyond_the_most_connections_in_use_there_is_a_plain_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(gate, "BODY_SECONDS", PATIENCE_SECONDS)  # so that none of them ends meanwhile
    with serving() as served:
        head = (
            f"POST /api/start HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {served.cookie}\r\nx-etude: 1\r\n"
            "content-type: application/json\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
        )
        used = slow_sockets(served, 4, head.encode())
        for each in used:
            assert each.recv(1000).startswith(b"HTTP/1.1 100 ")  # its request is being answered
        (more,) = slow_sockets(served, 1, b"")
        answer = more.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"as many connections as it takes" in answer
        for each in [*used, more]:
            each.close()

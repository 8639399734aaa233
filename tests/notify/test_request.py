"""Requests: bounded in time and size, no redirect, certificates verified."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.notify.request import UnansweredError, check_url, request


@contextmanager
def answering(answer: bytes, drip: float = 0.0, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers one request with some bytes, in drips if that is asked for."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        try:
            peer, _ = listener.accept()
            with context.wrap_socket(peer, server_side=True) if context else peer as client:
                client.recv(65536)
                for start in range(0, len(answer), 1 if drip else max(len(answer), 1)):
                    client.sendall(answer[start : start + 1] if drip else answer)
                    if drip and ended.wait(drip):
                        return
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{listener.getsockname()[1]}/path?q=1"
    finally:
        ended.set()
        listener.close()


def test_an_answer_is_read_up_to_a_limit_and_a_redirect_is_only_an_answer() -> None:
    body = b"x" * 300_000
    with answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n" + body) as url:
        reply = request("POST", url, headers={}, body=b"{}")
    assert reply.status == 302 and len(reply.body) == 1 << 16


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nA: " + b"x" * 10_000, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000]
)
def test_an_answer_that_comes_byte_by_byte_is_cut_off(answer: bytes) -> None:
    with answering(answer, drip=0.01) as url, pytest.raises(UnansweredError, match="no answer in time"):
        request("GET", url, headers={}, seconds=0.3)


@pytest.mark.parametrize(
    "answer", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000]
)
def test_what_is_no_answer_is_named_so(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(UnansweredError, match="no answer"):
        request("GET", url, headers={}, seconds=5)


def test_a_server_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out",
         tmp_path / "certificate", "-days", "2", "-subj", "/CN=127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    untrusted = pytest.raises(UnansweredError, match="certificate is not trusted")
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", context=context) as url, untrusted:
        request("POST", url, headers={}, body=b"secret", seconds=5)


def test_a_proxy_of_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert request("GET", "http://somewhere.invalid/x", headers={}).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "https://",
        "http://host:99999/",
        "https://ho st/",
        "file:///etc/passwd",
        "https://h\u00f6st/",
        "http://host:0/",
        "http://a..b/",
    ],
)
def test_an_address_that_is_none_of_the_web_is_refused_unseen(url: str) -> None:
    with pytest.raises(
        InputError, match=r"^notify: the variable X is not the address of a web server"
    ) as caught:
        check_url(url, "X")
    assert url in ("", "https://") or url not in str(caught.value)

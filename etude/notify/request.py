"""One HTTP request that is bounded: no redirect, certificates verified, limits of time and of the answer."""

import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from etude.errors import InputError

_MOST_BYTES = 1 << 16


class UnansweredError(Exception):
    """A request without an answer; what it asked for may have been done."""


@dataclass(frozen=True)
class Reply:
    """An answer: the status, the headers in lower case, and the start of the body (64 KiB at most)."""

    status: int
    headers: dict[str, str]
    body: bytes


def check_url(url: str, name: str) -> None:
    """Check that a variable holds the address of a web server. Raises: InputError that does not show it."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and parts.port != 0 and url.isascii()
        is_web = is_web and bool(parts.hostname) and bool(str(parts.hostname).encode("idna"))
    except ValueError:  # also of a name that no machine can have
        is_web = False
    if not is_web or re.search(r"[\x00-\x20\x7f]", url):
        raise InputError(
            f"notify: the variable {name} is not the address of a web server; it must be as "
            "https://name/path, with a port of 1 to 65535 if one is given"
        )


def request(
    method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, seconds: float = 10.0
) -> Reply:
    """Make one request over one connection; a proxy of the environment holds.

    seconds: for the connection, and again for the answer. Raises: UnansweredError.
    """
    parts = urlsplit(url)
    path, connection = _connect(parts, seconds)
    given = {**headers, **_login(parts, "Authorization")}
    is_late = threading.Event()
    watch = None
    try:
        connection.connect()
        watch = threading.Timer(seconds, _cut, [connection.sock, is_late])
        watch.daemon = True
        watch.start()
        connection.request(method, path, body=body, headers=given)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        reply = Reply(answer.status, found, answer.read(_MOST_BYTES))
        if is_late.is_set():
            raise TimeoutError
        return reply
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnansweredError(_why(TimeoutError() if is_late.is_set() else error)) from None
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()


def _connect(parts: SplitResult, seconds: float) -> tuple[str, http.client.HTTPConnection]:
    """The path to ask for, and the connection to ask by, which is yet to be opened."""
    host, port = str(parts.hostname), parts.port
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = urlsplit(getproxies_environment().get(parts.scheme, ""))
    if proxy.hostname is None or proxy_bypass(host):
        if parts.scheme == "https":
            return path, http.client.HTTPSConnection(host, port, timeout=seconds, context=_verified())
        return path, http.client.HTTPConnection(host, port, timeout=seconds)
    if parts.scheme == "http":
        where = f"http://{parts.netloc.rpartition('@')[2]}{path}"
        return where, http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=seconds)
    tunnel = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=seconds, context=_verified())
    tunnel.set_tunnel(host, port, _login(proxy, "Proxy-Authorization"))
    return path, tunnel


def _verified() -> ssl.SSLContext:
    return ssl.create_default_context()


def _login(parts: SplitResult, header: str) -> dict[str, str]:
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {header: f"Basic {base64.b64encode(pair).decode()}"}


def _cut(connection: socket.socket, is_late: threading.Event) -> None:
    """End an answer that comes byte by byte."""
    is_late.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"no answer ({type(error).__name__})"

"""The gate before every route: who may ask, from where and with what, and what a browser may do with answers.

docs/page.md says against whom each check stands.
"""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from etude.errors import InputError
from etude.text import shorten

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
MOST_BODY_BYTES = 1 << 20
BODY_SECONDS = 10.0
_MOST_FIELDS = 8
HEADER = b"x-etude"
_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_NAME = r"\[[0-9a-f:.]+\]|[a-z0-9.-]+"
_HOST = re.compile(rf"({_NAME})(?::([0-9]{{1,5}}))?")
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<name>{_NAME})(?::(?P<port>[0-9]{{1,5}}))?(?P<path>(?:/[a-z0-9._~@%+-]+)*)/?",
    re.I,
)
_PORTS = {"http": "80", "https": "443"}
# A page that a server of our own name sent us on from elsewhere: a cookie that was just set is not sent along
# by a redirect then, but by the next step of our own page.
_ONWARD = (
    b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=./"><a href="./">on</a>'
)


class Refusal(Exception):
    """An answer in place of that of a route: its status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Proxy:
    """The place of the page at a proxy that leads to this server.

    origin  scheme and host, as browsers name it
    hosts   forms of its host in a request: the port of the scheme may be left out
    path    that some proxies leave before ours and others take away; empty or as `/user/me/proxy/8171`
    """

    origin: str
    hosts: frozenset[str]
    path: str

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """The parts of an address. Raises: InputError."""
        found = _URL.fullmatch(url)
        if not found:
            raise InputError(
                f"--url is {shorten(url, 100)!r}; give the page's address at the proxy, as "
                "https://hub.example/user/me/proxy/8171/"
            )
        scheme, name, path = found["scheme"].lower(), found["name"].lower(), found["path"]
        if path.split("/")[1:2] in (["api"], ["static"]):
            raise InputError(f"--url has the path {shorten(path, 100)!r}, which the page has itself")
        usual = _PORTS[scheme]
        port = found["port"] or usual
        hosts = {f"{name}:{port}", *([name] if port == usual else [])}
        return cls(f"{scheme}://{min(hosts)}", frozenset(hosts), path)


@dataclass(frozen=True)
class Gate:
    """An ASGI application that lets through what the holder of the link asks, and answers the rest itself.

    token      256 bits in hexadecimal, which the first link and the cookie carry
    hosts      names by which this server may be called, in lower case, without a port
    read_only  whether no POST passes
    proxy      by which a browser may come, too
    is_api     programs ask, with the token as `Authorization: Bearer`; there is no link and no cookie
    """

    app: App
    token: str
    hosts: frozenset[str] = LOOPBACK
    read_only: bool = False
    proxy: Proxy | None = None
    is_api: bool = False
    cookie: str = field(init=False)

    def __post_init__(self) -> None:
        # Cookies are shared by all ports of a host, so servers side by side need a name each.
        object.__setattr__(self, "cookie", f"etude-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # of the server itself
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is served")
        send = _with_headers(send)
        scope = self._within_proxy(scope)
        try:
            headers = _Headers(scope)
            is_link = self._check_place(scope, headers)
            self._check_token(scope, headers, is_link)
            if is_link:
                await self._welcome(headers, send)
                return
            if scope["method"] == "POST":
                self._check_post(headers)
                receive = _replay(await _read_body(receive, headers), receive)
            elif scope["method"] not in ("GET", "HEAD"):
                raise Refusal(405, "only GET and POST are served")
        except Refusal as refusal:
            await _refuse(scope, refusal, send, is_api=self.is_api)
            return
        await self.app(scope, receive, send)

    def _within_proxy(self, scope: Scope) -> Scope:
        """The request with its path as it is without a proxy that leaves its own before it."""
        before = f"{unquote(self.proxy.path)}/" if self.proxy and self.proxy.path else ""
        if not before or not scope["path"].startswith(before):
            return scope
        return {**scope, "path": scope["path"][len(before) - 1 :]}

    def _check_place(self, scope: Scope, headers: "_Headers") -> bool:
        """Check the names of this server and of the page that asks; returns whether it is the first link.

        Raises: Refusal.
        """
        hosts = headers.all(b"host")
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        is_known = found and found[1] in self.hosts and int(found[2] or 80) <= 65535
        if not is_known and not self._is_at_proxy(headers):
            name = "serve" if self.is_api else "ui"
            raise Refusal(
                403, f"this server is not called by that name; use the address that etude {name} printed"
            )
        origins = headers.all(b"origin")
        ours = {f"{scope['scheme']}://{hosts[0].lower()}"} if is_known else set()
        ours |= {self.proxy.origin} if self.proxy else set()
        if origins and (len(origins) > 1 or origins[0] not in ours):
            raise Refusal(403, "another page may not ask this server")
        is_link = (
            not self.is_api
            and scope["method"] == "GET"
            and scope["path"] == "/"
            and b"token=" in scope["query_string"]
        )
        sites = headers.all(b"sec-fetch-site")
        if any(site not in ("same-origin", "none") for site in sites) and not (is_link and not origins):
            raise Refusal(403, "another page may not ask this server")
        return is_link

    def _is_at_proxy(self, headers: "_Headers") -> bool:
        """True for a request that names the host of the proxy, as most proxies pass it on."""
        hosts = [host.lower() for host in headers.all(b"host")]
        return self.proxy is not None and len(hosts) == 1 and hosts[0] in self.proxy.hosts

    def _check_token(self, scope: Scope, headers: "_Headers", is_link: bool) -> None:
        """Check the token of the first link, of the cookie, or of a program. Raises: Refusal."""
        if self.is_api:
            found = [value.partition(" ") for value in headers.all(b"authorization")]
            given = [value.strip() for kind, _, value in found if kind.lower() == "bearer"]
        elif is_link:
            text = scope["query_string"].decode("latin-1")
            given = parse_qs(text).get("token", [""]) if text.count("&") < _MOST_FIELDS else []
        else:
            pairs = [
                part.strip().partition("=") for text in headers.all(b"cookie") for part in text.split(";")
            ]
            given = [value for name, _, value in pairs if name == self.cookie]
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self.token.encode()):
            wanted = (
                "send Authorization: Bearer with the api_key that etude serve printed when it was started"
            )
            link = "open the link that etude ui printed when it was started"
            raise Refusal(401, wanted if self.is_api else link)

    def _check_post(self, headers: "_Headers") -> None:
        """Check that a program or a page of ours could send this, and no form could. Raises: Refusal."""
        if self.read_only:
            raise Refusal(403, "this server only shows (--read-only)")
        kind = headers.all(b"content-type")
        if len(kind) != 1 or kind[0].split(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "a request has the content type application/json")
        if not self.is_api and headers.all(HEADER) != ["1"]:
            raise Refusal(403, "a request has the header x-etude: 1")

    async def _welcome(self, headers: "_Headers", send: Send) -> None:
        """Turn the token of the link into a cookie, and lead to an address without it."""
        # Without a path the cookie is of the folder of the link, so no other server at a proxy gets it.
        is_secure = self.proxy and self.proxy.origin.startswith("https:") and self._is_at_proxy(headers)
        more = "; Secure" if is_secure else ""
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict{more}".encode()
        if headers.all(b"sec-fetch-site") in ([], ["none"], ["same-origin"]):
            await _send(send, 303, b"", [(b"location", b"./"), (b"set-cookie", cookie)])
        else:
            await _send(send, 200, _ONWARD, [(b"content-type", b"text/html"), (b"set-cookie", cookie)])


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._found = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    def all(self, name: bytes) -> list[str]:
        """Every value of a header, as each came."""
        return [value for found, value in self._found if found == name]


async def _read_body(receive: Receive, headers: _Headers) -> bytes:
    """The whole body, counted as it comes. Raises: Refusal if it is too long or too slow."""
    lengths = headers.all(b"content-length")
    if any(not length.isdecimal() or int(length[:20]) > MOST_BODY_BYTES for length in lengths):
        raise Refusal(413, f"a body has up to {MOST_BODY_BYTES:,} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the body has no end")
                body += message.get("body", b"")
                if len(body) > MOST_BODY_BYTES:
                    raise Refusal(413, f"a body has up to {MOST_BODY_BYTES:,} bytes")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(408, f"the body took over {BODY_SECONDS:.0f} s") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _with_headers(send: Send) -> Send:
    """Add the headers of every answer; a route may set a stricter one of its own."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            names = {name.lower() for name, _ in given}
            added = [(name, value) for name, value in _HEADERS.items() if name not in names]
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return with_headers


def error_of(status: int, text: str) -> dict[str, str | None]:
    """An error as programs that talk with OpenAI's servers expect it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": text, "type": kind, "param": None, "code": None}


async def _refuse(scope: Scope, refusal: Refusal, send: Send, *, is_api: bool) -> None:
    # What is left of its body is not read: the connection ends.
    headers = [(b"connection", b"close")]
    if is_api or scope["path"].startswith("/api/"):
        error = error_of(refusal.status, refusal.text) if is_api else refusal.text
        body = json.dumps({"error": error}).encode()
        await _send(send, refusal.status, body, [(b"content-type", b"application/json"), *headers])
    else:
        body = refusal.text.encode() + b"\n"
        await _send(send, refusal.status, body, [(b"content-type", b"text/plain; charset=utf-8"), *headers])


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
